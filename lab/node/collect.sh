#!/bin/sh
# SPDX-License-Identifier: MIT
# Collects what `lab run --node` needs of a node: rules, sysctls, addresses, versions. It reads, and changes nothing.
#
#   sh collect.sh [FILE]       writes an archive, node.tar where no name is given; - is standard output
#
# It needs a POSIX shell, tar and what a node has anyway; busybox will do. What cannot be read is said in notes.txt
# and on standard error. No rule, sysctl or module is touched: programs that would have the kernel load a module are
# not called where it is not loaded. Only a directory of its own is made, below $TMPDIR or /tmp, and deleted again.
# Left out is what is secret: keys among the sysctls (stable_secret, tcp_fastopen_key), kubeconfigs, the environment.
#
# In the archive:
#   iptables-nft-save.txt iptables-legacy-save.txt iptables-save.txt, and the same of ip6tables   with counters
#   nft.txt nft.json                               nft -a list ruleset, nft -j list ruleset
#   ip-addr.json ip-link.json ip-route.json ip-rule.json
#   sysctl.txt conntrack.txt                       net.* by key, and /proc/net/stat/nf_conntrack
#   uname.txt versions.txt kernel-config.txt kernel-log.txt
#   kube-proxy.txt kube-proxy-config.yaml          its command line, a word a line, and its --config
#   notes.txt                                      what could not be read

set -u
umask 077
LC_ALL=C
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export LC_ALL PATH

has() { command -v "$1" >/dev/null 2>&1; }

note() {
    echo "$1" >>"$here/notes.txt"
    echo "collect: $1" >&2
}

# keep NAME COMMAND...: keeps what a command prints, and says where it fails.
keep() {
    name=$1
    shift
    if ! "$@" >"$here/$name" 2>"$here/error" </dev/null; then
        note "$* failed: $(head -n 1 "$here/error")"
    fi
    [ -s "$here/$name" ] || rm -f "$here/$name"
    rm -f "$here/error"
}

# Whether the kernel has nf_tables, so that asking for rules does not load it.
has_nf_tables() {
    [ -d /sys/module/nf_tables ] || grep -q ' nf_tables_newtable' /proc/kallsyms 2>/dev/null
}

rules() {
    for version in ip ip6; do
        program="${version}tables"
        found=
        if has_nf_tables && has "$program-nft-save"; then
            found=1
            keep "$program-nft-save.txt" "$program-nft-save" -c
        fi
        names="/proc/net/${version}_tables_names"
        if [ -e "$names" ] && ! cat "$names" >/dev/null 2>&1; then
            note "$names cannot be read: rules of $program-legacy are not known"
        elif [ -e "$names" ] && has "$program-legacy-save"; then
            found=1
            keep "$program-legacy-save.txt" "$program-legacy-save" -c
        fi
        if [ -z "$found" ] && has "$program-save"; then
            case "$("$program" --version 2>/dev/null </dev/null)" in
                *nf_tables*) has_nf_tables && keep "$program-save.txt" "$program-save" -c ;;
                *) cat "$names" >/dev/null 2>&1 && keep "$program-save.txt" "$program-save" -c ;;
            esac
        elif [ -z "$found" ]; then
            note "$program-save: there is no such program, or the kernel has no such rules"
        fi
    done
    if has_nf_tables && has nft; then
        keep nft.txt nft -a list ruleset
        keep nft.json nft -j list ruleset
    elif has_nf_tables; then
        note "nft: there is no such program"
    fi
}

both_families() {
    ip -j -4 "$@" && ip -j -6 "$@"
}

places() {
    if ! ip -j link show lo >/dev/null 2>&1 </dev/null; then
        note "ip -j: there is no ip, or an old one; addresses and routes are not known"
        return
    fi
    keep ip-addr.json ip -j addr
    keep ip-link.json ip -j -d link
    keep ip-route.json both_families route show table main
    keep ip-rule.json both_families rule
}

# Some cannot be read by anyone, or are not there: nothing of note.
each_sysctl() {
    find /proc/sys/net/netfilter /proc/sys/net/ipv4 /proc/sys/net/ipv6 /proc/sys/net/bridge /proc/sys/net/nf_conntrack_max \
        -type f ! -name stable_secret ! -name '*_key' ! -path '*/neigh/*' -exec grep -H '' {} + 2>/dev/null
    return 0
}

kernel() {
    keep uname.txt uname -a
    keep sysctl.txt each_sysctl
    if [ -r /proc/net/stat/nf_conntrack ]; then
        keep conntrack.txt cat /proc/net/stat/nf_conntrack
    else
        note "/proc/net/stat/nf_conntrack cannot be read: what conntrack counted is not known"
    fi
    wanted='^CONFIG_(NETFILTER|NF_|NFT_|IP_NF|IP6_NF|IP_SET|IP_VS|BRIDGE_NETFILTER|BRIDGE_NF|NET_NS|BPF_SYSCALL)'
    if [ -r /proc/config.gz ] && has zcat; then
        zcat /proc/config.gz 2>/dev/null | grep -E "$wanted" >"$here/kernel-config.txt"
    elif [ -r "/boot/config-$(uname -r)" ]; then
        grep -E "$wanted" "/boot/config-$(uname -r)" >"$here/kernel-config.txt"
    else
        note "the kernel's configuration cannot be read"
    fi
    if dmesg >/dev/null 2>&1; then
        dmesg | grep -E 'nf_|netfilter|conntrack|ip6?_tables|IN=.* OUT=' | tail -n 200 >"$here/kernel-log.txt"
    else
        note "the kernel's log cannot be read"
    fi
}

versions() {
    for program in iptables-nft iptables-legacy iptables ip6tables nft conntrack; do
        has "$program" && "$program" --version 2>/dev/null </dev/null | head -n 1
    done
}

kube_proxy() {
    for process in /proc/[0-9]*; do
        words=$(tr '\0' '\n' 2>/dev/null <"$process/cmdline") || continue
        first=$(echo "$words" | head -n 1)
        [ "${first##*/}" = kube-proxy ] || continue
        echo "$words" >"$here/kube-proxy.txt"
        config=$(echo "$words" | sed -n -e 's/^--config=//p' -e '/^--config$/{n;p;}' | head -n 1)
        if [ -n "$config" ]; then
            file="$process/root$config"
            if grep -q KubeProxyConfiguration "$file" 2>/dev/null; then
                cat "$file" >"$here/kube-proxy-config.yaml"
            else
                note "kube-proxy's $config cannot be read"
            fi
        fi
        return
    done
    note "no kube-proxy is seen to run: its command line is not known"
}

main() {
    target=${1:-node.tar}
    here=$(mktemp -d "${TMPDIR:-/tmp}/node.XXXXXX") || exit 1
    trap 'rm -rf "$here"' EXIT
    trap 'exit 1' HUP INT TERM
    [ "$(id -u)" = 0 ] || note "not run as root: most of the rules cannot be read"
    rules
    places
    kernel
    versions >"$here/versions.txt"
    kube_proxy
    for file in "$here"/*; do
        [ -s "$file" ] || rm -f "$file"
    done
    if [ "$target" = - ]; then
        tar -cf - -C "$here" .
    else
        tar -cf - -C "$here" . >"$target" || exit 1
        echo "collect: wrote $target" >&2
    fi
}

# At the end, so that nothing runs of a script that arrives in part.
main "$@"
