#!/usr/bin/env python3
"""Circles of imports, and imports that point up, among the files of `src/` and `python/netasync/`.

Usage: imports.py [ROOT]. Prints one line for each and exits with 1 where there is one that is not excepted.

An edge of Rust is a path of a `use` or in the code that leads into another file, or a `self.method()` whose
method stands in another file's `impl` block of the same type. Tests are left out. An edge of Python is an
import that is not for a type checker alone. Regular expressions read the paths: good enough to
point, not to prove.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

# Each floor may import only what stands before it.
FLOORS = ("proto", "link", "py")
# Circles that may stay, each with its reason.
EXCEPTIONS: dict[frozenset[str], str] = {}

NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|b?r#*".*?"#*|b?"(?:\\.|[^"\\])*"|b?\'(?:\\.[^\']*|[^\'\\])\'', re.S)
TESTS = re.compile(r"#\[cfg\((?:all\()?(?:any\()?test\b[^\]]*\]\s*(?:pub\s+)?mod\s+\w+\s*\{")
USE = re.compile(r"\buse\s+((?:crate|super|self)\b[^;]*);")
PATH = re.compile(r"\b(crate|super|self)((?:::\w+)+)")
IMPL = re.compile(r"^impl(?:<[^>{]*>)?\s+(\w+)[^{;]*\{", re.M)
METHOD = re.compile(r"\bfn\s+(\w+)")
CALL = re.compile(r"\b(?:self\s*\.\s*|Self::)(\w+)\s*\(")

Edges = dict[str, dict[str, str]]


def main(root: Path) -> int:
    """Print what is found and return the exit status."""
    rust, python = rust_edges(root / "src"), python_edges(root / "python" / "netasync")
    faults = [line for edges in (rust, python) for line in circles(edges)]
    faults += list(upward(rust))
    for line in faults:
        print(line)
    return 1 if faults else 0


def circles(edges: Edges) -> Iterator[str]:
    """Yield each set of files that reach each other, with the edges that hold it together."""
    for members in strongly_connected(edges):
        if len(members) < 2 or frozenset(members) in EXCEPTIONS:
            continue
        yield f"circle of {len(members)} files: {', '.join(sorted(members))}"
        for source in sorted(members):
            for target, why in sorted(edges.get(source, {}).items()):
                if target in members:
                    yield f"    {source} -> {target}: {why}"


def upward(edges: Edges) -> Iterator[str]:
    """Yield each import of a higher floor by a lower one."""
    for source, targets in edges.items():
        for target, why in targets.items():
            if floor(source) < floor(target):
                yield f"upward: {source} -> {target}: {why}"


def floor(name: str) -> int:
    """Return the floor of a file; what belongs to none imports whom it likes."""
    top = name.split("/")[0]
    return FLOORS.index(top) if top in FLOORS else len(FLOORS)


def rust_edges(source: Path) -> Edges:
    """Return which file of `source` needs which other, and for what."""
    texts = {
        tuple(path.relative_to(source).with_suffix("").parts): path for path in sorted(source.rglob("*.rs"))
    }
    files = {module[:-1] if module[-1] in ("mod", "lib") else module: path for module, path in texts.items()}
    plain = {
        module: without_tests(path.read_text()) for module, path in files.items() if "races" not in module
    }
    names = {module: str(files[module].relative_to(source)) for module in plain}
    edges: Edges = defaultdict(dict)
    for module, text in plain.items():
        for path in paths(text):
            target = resolve(module, path, plain)
            # A module that is left out, and the root, which only declares.
            if target not in (None, (), module):
                edges[names[module]].setdefault(names[target], "::".join(path))
    for source_module, target_module, why in method_calls(plain):
        edges[names[source_module]].setdefault(names[target_module], why)
    return edges


def paths(text: str) -> Iterator[list[str]]:
    """Yield every path that a file names, braces expanded."""
    for use in USE.finditer(text):
        yield from expanded(re.sub(r"\s+", " ", use.group(1)))
    for path in PATH.finditer(USE.sub("", text)):
        yield [path.group(1), *path.group(2).strip(":").split("::")]


def expanded(tree: str) -> Iterator[list[str]]:
    """Yield the paths of one `use` tree."""
    tree = tree.strip()
    head, brace, rest = tree.partition("{")
    if not brace:
        yield [part.strip().split(" as ")[0] for part in tree.split("::")]
        return
    prefix = [part.strip() for part in head.split("::") if part.strip()]
    for branch in branches(rest[: rest.rindex("}")]):
        for path in expanded(branch):
            yield prefix + path


def branches(text: str) -> Iterator[str]:
    """Yield what stands between the commas of the outermost level."""
    depth, begin = 0, 0
    for at, sign in enumerate(text):
        depth += (sign == "{") - (sign == "}")
        if sign == "," and depth == 0:
            yield text[begin:at]
            begin = at + 1
    if text[begin:].strip():
        yield text[begin:]


def resolve(
    module: tuple[str, ...], path: list[str], known: dict[tuple[str, ...], str]
) -> tuple[str, ...] | None:
    """Return the file that a path leads into."""
    place: tuple[str, ...] = module
    rest = list(path)
    while rest:
        match rest[0]:
            case "crate":
                place = ()
            case "self":
                pass
            case "super":
                place = place[:-1]
            case name if (*place, name) in known:
                place = (*place, name)
            case _:
                break
        rest.pop(0)
    return place if place in known else None


def method_calls(plain: dict[tuple[str, ...], str]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], str]]:
    """Yield each call of a method of the same type in another file."""
    homes: dict[str, dict[str, set[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(set))
    blocks = [(module, kind, body) for module, text in plain.items() for kind, body in impls(text)]
    for module, kind, body in blocks:
        for method in METHOD.findall(body):
            homes[kind][method].add(module)
    for module, kind, body in blocks:
        for method in CALL.findall(body):
            for home in (
                homes[kind].get(method, set()) if module not in homes[kind].get(method, set()) else ()
            ):
                # Types of one name in other rooms are other types.
                if home[:1] == module[:1]:
                    yield module, home, f"{kind}::{method}()"


def impls(text: str) -> Iterator[tuple[str, str]]:
    """Yield the type and the body of each `impl` block that is of no trait."""
    for found in IMPL.finditer(text):
        if " for " not in found.group():
            yield found.group(1), text[found.start() : closing(text, found.start())]


def without_tests(text: str) -> str:
    """Return the text with comments, literals and test modules blank."""
    plain = NOISE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
    while found := TESTS.search(plain):
        plain = plain[: found.start()] + plain[closing(plain, found.start()) :]
    return plain


def closing(text: str, start: int) -> int:
    """Return the index behind the brace that closes the first one from `start` on."""
    depth = 0
    for at in range(text.index("{", start), len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return at + 1
    return len(text)


def python_edges(package: Path) -> Edges:
    """Return which module of the package imports which other while it runs."""
    edges: Edges = defaultdict(dict)
    for path in sorted(package.rglob("*.py")):
        for name in imported(ast.parse(path.read_text()).body):
            target = package / f"{name}.py"
            if target.exists() and target != path:
                edges[path.name].setdefault(target.name, f"import {name}")
    return edges


def imported(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the modules of the package that these statements import, those for a type checker apart."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imported(node.orelse)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield from [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
        else:
            for field in ("body", "orelse", "finalbody", "handlers"):
                yield from imported(
                    [child for child in getattr(node, field, []) if isinstance(child, ast.AST)]
                )


def strongly_connected(edges: Edges) -> list[set[str]]:
    """Return the sets of files that reach each other, largest first (Tarjan)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in edges.get(node, {}):
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            at = stack.index(node)
            found.append(set(stack[at:]))
            del stack[at:]

    for node in list(edges):
        if node not in order:
            visit(node)
    return sorted(found, key=len, reverse=True)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
