"""How this site's node is: what it does, since when, and what will need somebody.

Exit code 0: it takes part, or is absent by plan. 1: somebody should look (it waits for a person or for the
coordinator, a certificate or the disk ends soon). 2: it does not take part. The same facts stand in the node's folder
as status.json and, for node_exporter's textfile collector, as node.prom.
"""

import argparse

LINE = "how the node is; exit code 0 well, 1 look, 2 not taking part"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the action."""
    parser.add_argument("--home", metavar="DIR", help="the node's folder ($FEDIMB_NODE_HOME, else the working folder)")
    parser.add_argument("--json", action="store_true", help="print status.json, with the judgement, and nothing else")


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    import json
    import time
    from dataclasses import asdict

    from fedimb.deploy.home import NodeHome
    from fedimb.deploy.site.status import judged, read

    found = read(NodeHome.open(args.home))
    code, line = judged(found, time.time())
    if args.json:
        print(json.dumps(asdict(found) | {"judgement": line, "exit_code": code}, indent=1, ensure_ascii=False))
        return code
    from fedimb.text import aligned

    last, size = found.message or {}, found.disk
    held = "" if size.get("limit") is None else f" of {size['limit'] / 1e9:g}"  # type: ignore[operator]
    rows = [
        (found.site, line),
        ("coordinator", f"connected since {found.connected}" if found.connected else "not connected"),
        ("last message", f"{last['time']} {last['type']}, {last['outcome']}" if last else "none yet"),
        ("last round", str(last.get("round") if last.get("round") is not None else "none yet")),
        ("restarts", str(found.restarts)),
        ("waiting for you", str(found.inbox)),
        ("certificate ends", found.certificate or "unknown"),
        ("disk", f"{(size.get('used') or 0) / 1e9:.2f}{held} GB used, {(size.get('free') or 0) / 1e9:.1f} GB free"),
        ("version", f"fedimb {found.fedimb}, Flower {found.flower}"),
        *(("look at", warning) for warning in found.warnings),
    ]
    print("\n".join(aligned(rows, left=2)))
    return code
