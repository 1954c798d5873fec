"""Selectors, as kube-proxies and people write them."""

import pytest

from lab.kubeapi.selectors import SelectorError, fields, labels


def named(**labels):
    return {"metadata": {"name": "web", "labels": labels}, "spec": {"clusterIP": "10.0.0.1"}}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("", True),
        ("app", True),
        ("!app", False),
        ("!other,!service.kubernetes.io/headless", True),
        ("!other,!app", False),
        ("app=shop", True),
        ("app==shop,tier=web", False),
        ("app!=shop", False),
        ("tier!=web", True),
        ("app in (shop, bar),app", True),
        ("app in (bar)", False),
        ("app notin (bar)", True),
        ("app notin (bar,shop)", False),
        ("tier notin (web)", True),
        ("tier in (web)", False),
    ],
)
def test_labels(selector, selected):
    assert labels(selector)(named(app="shop")) is selected


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("metadata.name=web", True),
        ("metadata.name==other", False),
        ("spec.clusterIP!=None", True),
        ("spec.clusterIP!=10.0.0.1", False),
        ("spec.nodeName=", True),
        ("metadata.name=web,spec.clusterIP=None", False),
    ],
)
def test_fields(selector, selected):
    assert fields(selector)(named()) is selected


@pytest.mark.parametrize(("read", "text"), [(labels, "a b"), (labels, "a in b"), (fields, "metadata.name")])
def test_what_is_no_selector_is_refused(read, text):
    with pytest.raises(SelectorError):
        read(text)
