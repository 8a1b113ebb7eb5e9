#!/usr/bin/env python3
"""Lists the public API of ringmain and compares it with docs/public-api.txt.

usage: tests/public_api.py            fail if the API is not the one in the list, or has more than 260 items
       tests/public_api.py --update   write the list anew

Counted are the structs, enums, unions, traits, functions, methods, constants, statics, type aliases and macros that a user
can name and that are not hidden from the documentation, with all features. Each counts once, wherever else it is
re-exported. Fields, variants and implementations of traits do not count, and neither do the setters of options, each of which
stands for the public field of its name; they are listed as `option`.

It reads what rustdoc writes as JSON, which only nightly does. Without nightly it says so and succeeds.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

LIMIT = 260
ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "docs" / "public-api.txt"
COUNTED = {"struct", "enum", "union", "trait", "function", "constant", "static", "type_alias", "macro", "proc_macro"}
# Keep it apart from what stable builds: nightly would compile the same folder anew, and stable again after it.
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "doc"


def rustdoc():
    """The crate as rustdoc sees it; None without a nightly toolchain."""
    nightly = ["cargo", "+nightly"]
    if subprocess.run([*nightly, "--version"], capture_output=True, check=False).returncode != 0:
        return None
    command = [*nightly, "rustdoc", "--locked", "-p", "ringmain", "--lib", "--all-features", "--quiet", "--target-dir", str(TARGET)]
    flags = ["--", "-Z", "unstable-options", "--output-format", "json", "--cap-lints", "allow"]
    subprocess.run([*command, *flags], cwd=ROOT, check=True)
    return json.loads((TARGET / "doc" / "ringmain.json").read_text())


def public_items(crate):
    """Kind and path of each public item, sorted by path."""
    index, found, seen = crate["index"], {}, set()

    def add(item, path, kind):
        found.setdefault(item["id"], (path, kind))

    def visit(item_id, path):
        item = index.get(str(item_id))
        if item is None or (item_id, path) in seen:
            return
        seen.add((item_id, path))
        [(kind, inner)] = item["inner"].items()
        if kind == "use":
            target = index.get(str(inner["id"])) if inner["id"] is not None else None
            if target is None:
                return
            if inner["is_glob"]:
                for child in target["inner"]["module"]["items"]:
                    visit(child, path)
            else:
                enter(target, f"{path}::{inner['name']}")
            return
        enter(item, f"{path}::{item['name']}")

    def enter(item, path):
        [(kind, inner)] = item["inner"].items()
        if kind == "module":
            for child in inner["items"]:
                visit(child, path)
        if kind not in COUNTED:
            return
        # A shorter path may come later: where it is defined counts, and then the first.
        add(item, path, kind)
        if kind == "trait":
            for child in map(lambda child: index[str(child)], inner["items"]):
                [(child_kind, _)] = child["inner"].items()
                if child_kind in {"function", "assoc_const", "assoc_type"}:
                    add(child, f"{path}::{child['name']}", child_kind)
        fields = field_names(inner) if kind == "struct" else set()
        for impl in (index.get(str(impl)) for impl in inner.get("impls", []) if isinstance(inner, dict)):
            if impl is None or impl["inner"]["impl"]["trait"] is not None:
                continue
            for child in (index.get(str(child)) for child in impl["inner"]["impl"]["items"]):
                if child is not None and child["visibility"] == "public":
                    [(child_kind, _)] = child["inner"].items()
                    is_option = child_kind == "function" and child["name"] in fields
                    add(child, f"{path}::{child['name']}", "option" if is_option else child_kind)

    def field_names(struct):
        plain = struct["kind"]["plain"]["fields"] if "plain" in struct["kind"] else []
        fields = (index.get(str(field)) for field in plain)
        return {field["name"] for field in fields if field is not None and field["visibility"] == "public"}

    for child in index[str(crate["root"])]["inner"]["module"]["items"]:
        visit(child, "ringmain")
    names = {"assoc_const": "const", "constant": "const", "type_alias": "type", "assoc_type": "type", "function": "fn"}
    return sorted((path, names.get(kind, kind)) for path, kind in found.values())


def main():
    crate = json.loads(Path(sys.argv[2]).read_text()) if sys.argv[1:2] == ["--json"] else rustdoc()
    if crate is None:
        print("no nightly toolchain: the public API is not checked (rustup toolchain install nightly)")
        return 0
    lines = [f"{kind} {path}" for path, kind in public_items(crate)]
    text = "".join(f"{line}\n" for line in lines)
    if sys.argv[1:2] == ["--update"]:
        LIST.write_text(text)
    listed = LIST.read_text().splitlines() if LIST.exists() else []
    new, gone = sorted(set(lines) - set(listed)), sorted(set(listed) - set(lines))
    for line in new:
        print(f"+ {line}")
    for line in gone:
        print(f"- {line}")
    if new or gone:
        print("the public API is not the one in docs/public-api.txt; if that is meant: tests/public_api.py --update")
    count = sum(not line.startswith("option ") for line in lines)
    if count > LIMIT:
        print(f"the public API has {count} items, and may have {LIMIT}")
    print(f"{count} public items, and {len(lines) - count} options")
    return 1 if new or gone or count > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
