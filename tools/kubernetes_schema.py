"""Writes tests/controlplane/kubernetes_schema.json: fields of Kubernetes' kinds, from its generated client.

    .venv/bin/python -m pip install kubernetes_asyncio && .venv/bin/python tools/kubernetes_schema.py

The client itself is 48 MB of classes; what tests need of it are names, types and what must be there.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path

from kubernetes_asyncio import __version__, client

TARGET = Path(__file__).resolve().parents[1] / "tests/controlplane/kubernetes_schema.json"
KINDS = (
    "V1Namespace", "V1ServiceAccount", "V1ClusterRole", "V1ClusterRoleBinding", "V1Role", "V1RoleBinding", "V1ConfigMap", "V1Secret",
    "V1Service", "V1StatefulSet", "V1NetworkPolicy", "V1PodDisruptionBudget", "V1Pod",
)  # fmt: skip


def fields_of(model: type) -> dict[str, dict[str, object]]:
    """JSON name -> type as the client writes it, and whether it must be there."""
    found = {}
    for name, kind in model.openapi_types.items():
        setter = inspect.getsource(getattr(model, name).fset)
        found[model.attribute_map[name]] = {"type": kind, "required": "must not be `None`" in setter}
    return found


def main() -> int:
    waiting, schema = list(KINDS), {}
    while waiting:
        name = waiting.pop()
        if name in schema or not hasattr(getattr(client, name, None), "openapi_types"):
            continue
        schema[name] = fields_of(getattr(client, name))
        waiting += [word for field in schema[name].values() for word in re.findall(r"\w+", str(field["type"]))]
    models = {
        name: {field: f"{one['type']}!" if one["required"] else one["type"] for field, one in sorted(schema[name].items())}
        for name in sorted(schema)
    }
    TARGET.write_text(json.dumps({"client": f"kubernetes_asyncio {__version__}", "models": models}, indent=0) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
