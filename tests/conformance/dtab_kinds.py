"""What each kind of case in dtab.json asks, as a function that fails. Names no case."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from meshcore import naming
from meshcore.naming import (
    Bound,
    Failed,
    Leaf,
    Namers,
    Neg,
    Path,
    catalog,
    headers,
    identifiers,
    statics,
    system,
    transformers,
)

Case = dict[str, Any]
KINDS: dict[str, Callable[[Case], None]] = {}

# `!` below a union failed the whole union until Finagle 19.5; we have the later meaning.
EARLIER_MEANING = "2018"


def kind(function: Callable[[Case], None]) -> Callable[[Case], None]:
    KINDS[function.__name__] = function
    return function


def same_or_earlier(case: Case, got: Any, expected: Any) -> None:
    """Equal; or, for a case of the earlier meaning, another outcome than it had."""
    if case.get("semantics") == EARLIER_MEANING:
        assert got != expected
    else:
        assert got == expected


# -- the language


@kind
def path_valid(case: Case) -> None:
    path = naming.read_path(case["input"])
    assert list(path.texts) == case["elements"]
    assert str(path) == case["print"]
    assert naming.read_path(str(path)) == path


def refused(read: Callable[[str], Any], case: Case) -> None:
    with pytest.raises(naming.DtabSyntaxError) as caught:
        read(case["input"])
    assert case.get("error_contains", "") in str(caught.value)
    if "error" in case:
        assert str(caught.value) == case["error"]


@kind
def path_invalid(case: Case) -> None:
    refused(naming.read_path, case)


@kind
def tree_invalid(case: Case) -> None:
    refused(naming.read_tree, case)


@kind
def dentry_invalid(case: Case) -> None:
    refused(naming.read_dentry, case)


@kind
def dtab_invalid(case: Case) -> None:
    refused(naming.read_dtab, case)


def ast_of(tree: naming.NameTree[Path]) -> Any:
    if isinstance(tree, Leaf):
        return {"leaf": str(tree.value)}
    if isinstance(tree, naming.Alt):
        return {"alt": [ast_of(one) for one in tree.trees]}
    if isinstance(tree, naming.Union):
        return {"union": [{"weight": one.weight, "tree": ast_of(one.tree)} for one in tree.branches]}
    return type(tree).__name__.lower()


def in_two_decimals(text: str) -> str:
    """A print of ours as Finagle would print it: its weights have two decimals, whatever is lost."""
    return re.sub(r"([0-9.]+)\*", lambda weight: f"{float(weight[1]):.2f}*", text)


@kind
def tree_valid(case: Case) -> None:
    tree = naming.read_tree(case["input"])
    shown = naming.show_tree(tree)
    if "ast" in case:
        assert ast_of(tree) == case["ast"]
    assert naming.read_tree(shown) == tree
    assert in_two_decimals(shown) == case["print"]
    if naming.read_tree(case["print"]) == tree:
        assert shown == case["print"]  # only where theirs loses a weight may ours differ


@kind
def dentry_valid(case: Case) -> None:
    dentry = naming.read_dentry(case["input"])
    assert naming.show_dentry(dentry) == case["print"]
    assert naming.read_dentry(case["print"]) == dentry


@kind
def dtab_valid(case: Case) -> None:
    dtab = naming.read_dtab(case["input"])
    entries = [{"prefix": str(one.prefix), "dst": naming.show_tree(one.dst)} for one in dtab]
    assert entries == case.get("entries", entries)
    assert naming.show_dtab(dtab) == case["print"]
    assert naming.read_dtab(case["print"]) == dtab


# -- whole tables


@kind
def dtab_concat(case: Case) -> None:
    assert naming.show_dtab(naming.read_dtab(case["left"]) + naming.read_dtab(case["right"])) == case["print"]


@kind
def request_dtab_merge(case: Case) -> None:
    given = [(name, value) for name, value in case["headers"]]
    if "error" in case:
        with pytest.raises(naming.NamingError):
            headers.take_request_dtab(naming.EMPTY_DTAB, given)
        return
    merged, others = headers.take_request_dtab(naming.read_dtab(case.get("existing_local", "")), given)
    assert naming.show_dtab(merged) == case["print"]
    assert not {name.lower() for name, _ in others} & {"l5d-dtab", "l5d-ctx-dtab"}


@kind
def http_dtab_local(case: Case) -> None:
    got = headers.read_dtab_local([(name, value) for name, value in case["headers"]])
    assert naming.show_dtab(got) == case["print"]


@kind
def dtab_strip_prefix(case: Case) -> None:
    got = naming.read_dtab(case["dtab"]).without(naming.read_dtab(case["prefix"]))
    assert naming.show_dtab(got) == case["expect"]


@kind
def dtab_json(case: Case) -> None:
    dtab = naming.read_dtab(case["dtab"])
    assert json.loads(naming.dtab_to_json(dtab)) == json.loads(case["json"])
    assert naming.dtab_from_json(case["json"]) == dtab


@kind
def dtab_pretty(case: Case) -> None:
    assert naming.show_pretty(naming.read_dtab(case["dtab"])) == case["expect"]


@kind
def dtab_lookup(case: Case) -> None:
    dtab, path = naming.read_dtab(case["dtab"]), naming.read_path(case["path"])
    assert naming.show_tree(naming.lookup(dtab, path)) == case["expect"]
    assert naming.compile_dtab(dtab).lookup(path) == naming.lookup(dtab, path)


# -- trees


@kind
def tree_eval(case: Case) -> None:
    got = naming.evaluate(naming.read_tree(case["tree"]))
    expected = None if case["expect"] is None else {naming.read_path(one) for one in case["expect"]}
    same_or_earlier(case, got, expected)


@kind
def tree_simplify(case: Case) -> None:
    simple = naming.simplify(naming.read_tree(case["tree"]))
    assert naming.simplify(simple) == simple
    same_or_earlier(case, naming.show_tree(simple), case["expect"])


@kind
def union_distribution(case: Case) -> None:
    tree = naming.read_tree(case["tree"])
    exact = {naming.show_tree(end): share for end, share in naming.shares(tree)}
    assert exact == pytest.approx(case["shares"])
    rng = random.Random(20160316)
    drawn = Counter(naming.show_tree(naming.choose(tree, rng.random())) for _ in range(case["draws"]))
    assert {name: count / case["draws"] for name, count in drawn.items()} == pytest.approx(
        case["shares"], rel=case["tolerance_relative"]
    )


# -- binding

NUMBERS = {"one": 1, "two": 2, "three": 3}


def namers_of(case: Case) -> Namers:
    """The namers that a case describes in words."""
    told = case.get("namers") or []
    pairs = [f"{prefix} {what}" for prefix, what in told.items()] if isinstance(told, dict) else told
    return Namers([namer_told(words) for words in pairs])


def namer_told(words: str) -> tuple[str, Any]:
    prefix = words.split()[0]
    if found := re.search(r"always gives the path (\S+)", words):
        return prefix, Leaf(naming.read_path(found[1]))
    if found := re.search(r"binds id (\S+)", words):
        return prefix, naming.binds(found[1])
    if found := re.search(r"binds (\w+) elements?", words):
        count = NUMBERS[found[1]]
        return prefix, naming.binds(prefix, count)
    if found := re.search(r"knows only (\S+)", words):
        known = {Path.of(found[1])}
        return prefix, catalog.longest_known(naming.read_path(prefix), known)
    if re.search(r"fail|error|throw", words):
        return prefix, Failed(words)
    if "neg" in words:
        return prefix, Neg()
    raise AssertionError(f"no namer is known that is told so: {words!r}")


@kind
def bind(case: Case) -> None:
    dtab, path = naming.read_dtab(case["dtab"]), naming.read_path(case["path"])
    got = naming.bind(dtab, path, namers_of(case))
    if "error" in case:
        assert isinstance(got, Failed)
        assert ("depth" in got.message) == ("depth" in case["error"])
        return
    assert isinstance(got, naming.NameTree), got
    same_or_earlier(case, naming.show_tree(got), case["expect"])
    found = [{"id": str(bound.id), "residual": str(bound.residual)} for bound in naming.leaves(got)]
    if "leaves" in case and case.get("semantics") != EARLIER_MEANING:
        assert found == case["leaves"]
    assert all(
        naming.bind(naming.EMPTY_DTAB, bound.id, namers_of(case)) == Leaf(Bound(bound.id))
        for bound in naming.leaves(got)
        if bound.id.starts_with(Path.of("$", "inet")) or bound.id.starts_with(Path.of("$", "io.buoyant.rinet"))
    )


@kind
def delegate(case: Case) -> None:
    dtab, path = naming.read_dtab(case["dtab"]), naming.read_path(case["path"])
    got = naming.delegator_json(naming.explain(dtab, path, namers_of(case)))
    if "error" in case:
        assert '"exception"' in json.dumps(got)
        return
    assert without_messages(got) == without_messages(case["expect"])


def without_messages(node: Any) -> Any:
    """How a failure is worded is each program's own."""
    if isinstance(node, dict):
        return {key: without_messages(value) for key, value in node.items() if key != "message"}
    return [without_messages(one) for one in node] if isinstance(node, list) else node


@kind
def rewrite_namer(case: Case) -> None:
    got = system.ask_system(naming.read_path(case["path"]).elems)
    if "error" in case:
        assert isinstance(got, Failed | Neg)
    else:
        assert naming.show_tree(got) == case["expect"]


@kind
def status_namer(case: Case) -> None:
    path = naming.read_path(case["path"])
    got = system.ask_system(path.elems)
    expected = case.get("expect", case.get("status"))
    if expected == "~":
        assert got == Neg()
        return
    assert isinstance(got, Leaf) and isinstance(got.value, Bound)
    assert got.value.id + got.value.residual == path
    numbers = re.findall(r"\b[1-5][0-9][0-9]\b", json.dumps(expected))
    assert not numbers or str(system.status_of(got.value)) in numbers


@kind
def rewrite_config_namer(case: Case) -> None:
    got = naming.rewrites(case["pattern"], case["name"])(naming.read_path(case["path"]))
    assert naming.show_tree(got) == case["expect"]


@kind
def path_matcher(case: Case) -> None:
    got = naming.Pattern(case["pattern"]).extract(naming.read_path(case["path"]))
    assert got == case.get("expect")  # where theirs throws, ours does not match


@kind
def path_substitute(case: Case) -> None:
    got = naming.Pattern(case["pattern"]).substitute(naming.read_path(case["path"]), case["template"])
    assert got == case["expect"]


@kind
def transformer_strip(case: Case) -> None:
    assert str(transformers.strip_transformers(naming.read_path(case["path"]))) == case["expect"]


@kind
def static_config_merge(case: Case) -> None:
    assert statics.merged(case["configs"], naming.read_path(case["path"])) == case["expect"]


@kind
def client_cache(case: Case) -> None:
    clients: dict[str, int] = {}
    for path, bound_id, residual in zip(case["paths"], case["bound_ids"], case["residuals"], strict=True):
        got = naming.bind(naming.EMPTY_DTAB, naming.read_path(path), Namers([(bound_id, naming.binds(bound_id))]))
        assert got == Leaf(Bound(naming.read_path(bound_id), naming.read_path(residual)))
        clients[bound_id] = 1  # a table keyed by id makes one client for each
    assert clients == case["clients_created"]


# -- catalogues and identifiers


@kind
def catalog_namer(case: Case) -> None:
    got = catalogued(case)(naming.read_path(case["path"]))
    if case.get("bound_id", case.get("expect")) in ("~", None) and "residual" not in case:
        assert got == Neg()
        return
    assert isinstance(got, Leaf)
    assert str(got.value.residual) == case["residual"]
    if "bound_id" in case:
        assert case["bound_id"] in (str(got.value.id), f"{PREFIX_OF_THEIR_TESTS}{got.value.id}")
    if "service" in case:
        assert got.value.id.texts[-1] == case["service"]
    if "tag" in case:
        assert got.value.id.texts[-2] == case["tag"]


PREFIX_OF_THEIR_TESTS = "/test"


def catalogued(case: Case) -> naming.Namer:
    words, none = case["namer"], Path()
    known = {naming.read_path(one if one.startswith("/") else f"/{one}") for one in case.get("known", [])}
    if words.startswith("k8s"):
        return catalog.kubernetes(none, has_namespace="k8s.ns" not in words, has_label="label" in words)
    if words.startswith("consul"):
        return catalog.consul(none, has_tag="includeTag" in words, knows=lambda key: not known or key in known)
    if words.startswith("serversets"):
        return catalog.longest_known(naming.read_path("/#/some/prefix"), known)
    if words.startswith(("fs", "dnssrv")):
        return lambda rest: naming.binds(none, 1)(rest) if not known or rest.take(1) in known else Neg()
    if words.startswith("marathon"):
        whole = case.get("bound_id", "/")
        above = next((one for one in known if whole.endswith(str(one))), none)
        return catalog.shortest_known(naming.read_path(whole.removesuffix(str(above)) or "/"), known)
    raise AssertionError(f"no catalogue is known of that kind: {words!r}")


def identifier_of(case: Case) -> identifiers.Identifier:
    config = dict(case.get("config", {}))
    prefix = naming.read_path(config.pop("prefix", "/svc"))
    is_h2 = case["identifier"].startswith("h2 ")
    name = case["identifier"].removeprefix("h2 ").removeprefix("io.l5d.")
    if name == "path":
        return identifiers.path(prefix, config.get("segments", 1), consume=config.get("consume", False))
    if name == "methodAndHost":
        return identifiers.method_and_host(prefix, with_uri=config.get("httpUriInDst", False))
    if name == "header":
        return identifiers.header(prefix, config.get("header", identifiers.DEFAULT_NAME_HEADER))
    if name == "header.token":
        return identifiers.header_token(prefix, config.get("header", ":authority" if is_h2 else "Host"))
    if name == "header.path":
        return identifiers.header_path(prefix, config.get("header", ":path"), config.get("segments"))
    if name == "static":
        return identifiers.static(naming.read_path(config["path"]), prefix)
    raise AssertionError(f"no identifier is known of that kind: {name!r}")


@kind
def identify(case: Case) -> None:
    request = case["request"]
    fields = [(name, value) for name, value in request.get("headers", [])]
    fields += [("Host", request["host"])] if request.get("host") is not None else []
    fields += [(f":{name}", request[name]) for name in ("path", "authority") if name in request]
    head = identifiers.RequestHead(
        request.get("method", "GET"), request.get("uri", "/"), request.get("version", "1.1"), tuple(fields)
    )
    got = identifier_of(case)(head)
    if "error" in case or case["expect"] == "unidentified":
        assert isinstance(got, identifiers.Unidentified)
        return
    assert isinstance(got, identifiers.Identified), got
    assert str(got.name) == case["expect"]
    if "out_uri" in case:
        assert (got.target or head.target) == case["out_uri"]
