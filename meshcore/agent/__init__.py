"""The part of a proxy that talks to the control plane: who we are, whom we trust, where names lead. Carries no traffic.

It runs an asyncio loop on a thread of its own and needs the packages of `meshcore[mesh]`; `import meshcore` never loads it.
"""
