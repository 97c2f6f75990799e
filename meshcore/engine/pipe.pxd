# Kernel pipes for splice: leased to one direction of one exchange, kept for the next. Moves no bytes itself.

from meshcore.engine.state cimport MAX_IDLE_PIPES, Flow, Pipe, Worker
from meshcore.engine.sys cimport sys_close, sys_pipe

cdef enum:
    PIPE_BYTES = 1048576                # the default quota of an unprivileged user per pipe


cdef inline int pipe_lease(Worker* worker, Pipe* pipe) noexcept nogil:
    """A pipe, 1; or 0 when the system has none: copy instead."""
    cdef int fds[2]
    if worker.n_idle_pipes:
        worker.n_idle_pipes -= 1
        pipe[0] = worker.idle_pipes[worker.n_idle_pipes]
        return 1
    if sys_pipe(fds, PIPE_BYTES) != 0:
        return 0
    pipe.read_fd = fds[0]
    pipe.write_fd = fds[1]
    return 1


cdef inline void pipe_return(Worker* worker, Flow* flow) noexcept nogil:
    """Give back a flow's pipe. One with bytes in it is closed: they belong to nobody else."""
    if flow.pipe.write_fd < 0:
        return
    if flow.piped_bytes == 0 and worker.n_idle_pipes < MAX_IDLE_PIPES:
        worker.idle_pipes[worker.n_idle_pipes] = flow.pipe
        worker.n_idle_pipes += 1
    else:
        sys_close(flow.pipe.read_fd)
        sys_close(flow.pipe.write_fd)
    flow.pipe.read_fd = flow.pipe.write_fd = -1
    flow.piped_bytes = 0


cdef inline void pipe_close_idle(Worker* worker) noexcept nogil:
    while worker.n_idle_pipes:
        worker.n_idle_pipes -= 1
        sys_close(worker.idle_pipes[worker.n_idle_pipes].read_fd)
        sys_close(worker.idle_pipes[worker.n_idle_pipes].write_fd)
