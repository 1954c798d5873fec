"""The command imports the least of scapy, and crafts by it what the whole crafts."""

import json
import subprocess
import sys

CODE = """
import json
if {command}: import lab.__main__
from lab.evidence.packet import SocketAddress as End
from lab.wire.craft import IcmpError, Segment, craft
crafted = []
for one, other in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")):
    segment = Segment(End(one, 1025), End(other, 80), 5, 6, "PA", 100, b"hello", (1, 2), options=[("MSS", 1400)])
    crafted += [craft(segment), craft(IcmpError(other, one, 3, 4, segment, 1300))]
import scapy.data
from scapy.config import conf
print(json.dumps([[one.hex() for one in crafted], len(scapy.data.MANUFDB), len(conf.ifaces)]))
"""


def test_the_command_crafts_by_the_least_of_scapy_what_all_others_craft_by_the_whole():
    programs = ([sys.executable, "-Werror", "-c", CODE.format(command=command)] for command in (True, False))
    least, whole = (subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True) for program in programs)
    crafted, makers, interfaces = json.loads(least.stdout.splitlines()[-1])
    assert (makers, interfaces) == (0, 0)
    expected, makers, interfaces = json.loads(whole.stdout)
    assert makers > 10_000
    assert interfaces > 0
    assert crafted == expected
