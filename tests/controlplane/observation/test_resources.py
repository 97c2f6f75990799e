"""What operators name, and what belongs to it."""

import pytest

from controlplane.errors import Invalid
from controlplane.observation.resources import Resource, member_labels, parse_resource

WEB = member_labels("shop", "web-1", "web", {"app": "web", "deployment": "web"}, "eu-1")


@pytest.mark.parametrize(("words", "label", "name"), [
    ("deploy/web", "deployment", "web"), (("deploy", "web"), "deployment", "web"), ("deployments", "deployment", ""),
    ("po/web-1", "pod", "web-1"), ("svc/web", "service", "web"), ("sa/web", "serviceaccount", "web"),
    ("au/web.shop:80", "authority", "web.shop:80"),
])  # fmt: skip
def test_a_resource_is_a_kind_and_perhaps_a_name(words, label, name):
    assert parse_resource(words, "shop") == Resource(label, name, "shop")


def test_a_namespace_is_its_own():
    assert parse_resource("ns/shop", "other") == Resource("namespace", "shop", "")
    assert parse_resource("ns", "shop") == Resource("namespace", "shop", "")


@pytest.mark.parametrize("words", ["", "web", "deploy/", "deploy/a/b", "deploy/UPPER", "x/y", "deploy/\x1b[2J", "deploy/" + "a" * 300])
def test_anything_else_is_refused_with_what_was_expected(words):
    with pytest.raises(Invalid, match="expected"):
        parse_resource(words)


@pytest.mark.parametrize(("resource", "covers"), [
    (Resource("deployment", "web", "shop"), True), (Resource("deployment", "", "shop"), True), (Resource("pod", "web-1"), True),
    (Resource("namespace", "shop"), True), (Resource("namespace", "other"), False), (Resource("deployment", "web", "other"), False),
    (Resource("deployment", "api", "shop"), False), (Resource("service", "web", "shop"), False), (Resource("statefulset"), False),
])  # fmt: skip
def test_what_carries_its_labels_belongs_to_it(resource, covers):
    assert resource.covers(WEB) is covers


def test_outside_kubernetes_a_workload_is_its_own_deployment_and_pod():
    assert member_labels("shop", "db", "db", {})["deployment"] == "db"
    assert member_labels("shop", "db-1", "db", {"app": "db"})["deployment"] == "db"


def test_what_a_workload_is_cannot_be_overridden_by_its_labels():
    labels = member_labels("shop", "web-1", "web", {"namespace": "admin", "workload": "root", "serviceaccount": "root"})
    assert (labels["namespace"], labels["workload"], labels["serviceaccount"]) == ("shop", "web-1", "web")
