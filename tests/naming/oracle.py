"""Binding in the plainest way: the rules of docs/naming.md one by one, by recursion, on tuples of text. Shares no code.

A path is a tuple of text. A tree is ("leaf", path), ("bound", id, residual), ("alt", trees), ("union", ((weight, tree),
…)), or one of "neg", "fail", "empty". A table is a list of (prefix, tree), a prefix a tuple with None for `*`. A bind
gives a tree, "failed" or "pending". Namers are a list of (prefix, function of the rest).
"""

DEEPEST = 100
MOST_NESTED = 128


class TooMuch(Exception):
    """The whole bind fails: too many lookups, or too many unions one in the other."""


class Oracle:
    def __init__(self, table, namers, most_lookups):
        self.table = table
        self.namers = namers
        self.lookups_left = most_lookups

    def bind(self, path):
        try:
            return self.follow(("leaf", path), 0)
        except TooMuch:
            return "failed"

    def follow(self, tree, depth):
        if depth > DEEPEST:
            return "failed"
        if isinstance(tree, str) or tree[0] == "bound":
            return tree
        if tree[0] == "leaf":
            # Asking costs a lookup only where its answer could still count.
            if depth + 1 > DEEPEST:
                return "failed"
            if self.lookups_left == 0:
                raise TooMuch
            self.lookups_left -= 1
            answer = self.look_up(tree[1])
            return answer if answer in ("failed", "pending") else self.follow(answer, depth + 1)
        if tree[0] == "alt":
            for one in tree[1]:
                bound = self.follow(one, depth)
                if bound != "neg":
                    return bound
            return "neg"
        if len(tree[1]) == 1:
            return self.follow(tree[1][0][1], depth)
        return self.together([(weight, self.follow(one, depth)) for weight, one in tree[1]])

    def look_up(self, path):
        given = table_lookup(self.table, path)
        if given != "neg":
            return given
        for prefix, namer in self.namers:
            if path[: len(prefix)] == prefix:
                answer = namer(path[len(prefix) :])
                if answer != "neg":
                    return answer
        return system(path)

    @staticmethod
    def together(branches):
        if not branches:
            return "neg"
        known = [(weight, one) for weight, one in branches if one not in ("failed", "pending")]
        if not known:
            return "failed" if any(one == "failed" for _, one in branches) else "pending"
        leading = tuple((weight, one) for weight, one in known if one not in ("neg", "fail"))
        if not leading:
            return "neg"
        if len(leading) == 1:
            return leading[0][1]
        union = ("union", leading)
        if nesting(union) > MOST_NESTED:
            raise TooMuch
        return union


def nesting(tree):
    if isinstance(tree, str) or tree[0] != "union":
        return 0
    return 1 + max(nesting(one) for _, one in tree[1])


def matches(prefix, path):
    return len(prefix) <= len(path) and all(mine in (None, its) for mine, its in zip(prefix, path, strict=False))


def extended(tree, rest):
    if isinstance(tree, str):
        return tree
    if tree[0] == "leaf":
        return ("leaf", tree[1] + rest)
    if tree[0] == "alt":
        return ("alt", tuple(extended(one, rest) for one in tree[1]))
    return ("union", tuple((weight, extended(one, rest)) for weight, one in tree[1]))


def table_lookup(table, path):
    given = [extended(tree, path[len(prefix) :]) for prefix, tree in reversed(table) if matches(prefix, path)]
    if not given:
        return "neg"
    return given[0] if len(given) == 1 else ("alt", tuple(given))


def system(path):
    if path[:1] != ("$",) or len(path) < 2:
        return "neg"
    if path[1] == "nil":
        return "empty"
    if path[1] == "fail":
        return "fail"
    if path[1] == "inet" and path[3:] and path[3].isdigit():
        return ("bound", path[:4], path[4:])
    if path[1] == "inet" and path[2:] and path[2].isdigit():
        return ("bound", path[:3], path[3:])
    return "failed"
