# A list many threads push to and one thread takes whole. Owns the links; what a node carries is its user's.
#
# Push is one compare-and-swap, take is one exchange: no thread ever waits for another. Nodes come out newest first,
# so the taker reverses them to get arrival order back.

from meshcore.engine.sys cimport atomic_load_ptr, atomic_swap_ptr, atomic_cas_ptr


cdef struct StackNode:
    StackNode* next


cdef struct Stack:
    void* head                          # StackNode*, written by many threads


cdef inline int stack_push(Stack* stack, StackNode* node) noexcept nogil:
    """Add a node. Returns 1 when the stack was empty: the pusher then owes the taker a wake-up."""
    cdef void* head = atomic_load_ptr(&stack.head)
    node.next = <StackNode*>head
    while not atomic_cas_ptr(&stack.head, &head, node):
        node.next = <StackNode*>head
    # Not node.next: the taker may have unlinked, reused or freed the node by now.
    return head == NULL


cdef inline StackNode* stack_take(Stack* stack) noexcept nogil:
    """Take everything, oldest first. Returns NULL when empty."""
    cdef StackNode* node
    cdef StackNode* following
    cdef StackNode* oldest = NULL
    if atomic_load_ptr(&stack.head) == NULL:
        return NULL
    node = <StackNode*>atomic_swap_ptr(&stack.head, NULL)
    while node != NULL:
        following = node.next
        node.next = oldest
        oldest = node
        node = following
    return oldest
