"""`meshctl completion`: the script that teaches a shell our commands and flags."""

from __future__ import annotations

from meshcore.commands import completion_of

completion = completion_of("meshctl")
