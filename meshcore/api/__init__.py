"""What travels between proxies and control plane: .proto files and the code generated from them. Imported by nobody here.

`tools/protos.sh` regenerates the code after a change of a .proto file; a test compares the two. Needs the extra `mesh`.
"""
