# Commands from Python to one worker: new configuration, names bound, contexts, taps, drain, stop. Owns their shape; the loop acts on them.
#
# A command is allocated by Python, pushed, and acknowledged by `done`; Python frees it after that.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from meshcore.engine.lookup cimport Bind
from meshcore.engine.openssl cimport SSL_CTX
from meshcore.engine.stack cimport StackNode, stack_push
from meshcore.engine.state cimport SnapshotRef, Worker
from meshcore.engine.sys cimport sys_notify
from meshcore.engine.tap_session cimport TapSession

cdef enum CommandKind:
    COMMAND_APPLY = 0
    COMMAND_TAP_OPEN = 1
    COMMAND_TAP_CLOSE = 2
    COMMAND_DRAIN = 3
    COMMAND_STOP = 4
    COMMAND_BIND = 5
    COMMAND_TRUST = 6


cdef struct Command:
    StackNode node                      # first: travels through a stack
    uint8_t kind
    SnapshotRef* snapshot
    TapSession* tap
    uint32_t tap_index
    Bind* binds                         # Python's, as what they point at
    uint32_t n_binds
    uint32_t context                    # index of a shared one
    SSL_CTX* tls                        # one reference, the worker's from then on
    uint32_t done                       # set by the worker, last


cdef inline void mailbox_post(Worker* worker, Command* command) noexcept nogil:
    if stack_push(&worker.mailbox, &command.node):
        sys_notify(worker.wake_fd)
