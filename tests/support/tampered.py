"""A node whose replies are wrong or late, told by a file: without a hook in the code itself.

Most kinds are about train replies of some rounds; ``boast`` is about all of a site's figures, from joining on.
"""

# Python loads it in every process of a node; it changes what the client answers once node_app is imported.
TAMPER = """
import importlib.util, json, os, sys, time
from pathlib import Path


def evil(kind, reply):
    from fedimb.records import array_record, arrays_of
    if kind == "weight":
        reply.content["metrics"]["num-examples"] = 1e15
    elif kind == "matrix":
        matrix = arrays_of(reply.content, "x.confusion")["matrix"]
        matrix[0, 0] = 10**12
        reply.content["x.confusion"] = array_record({"matrix": matrix})
    return reply


def boast(times, message, reply):
    # So many times its rows, every one of them found; and its model is the one that was sent, with 1 added everywhere.
    import numpy as np
    from flwr.app import ConfigRecord
    from fedimb.records import array_record, arrays_of
    content = reply.content
    if "x.site" in content:
        about = dict(content["x.site"])
        content["x.site"] = ConfigRecord(about | {key: times * about[key] for key in ("rows", "validation")})
        sums = arrays_of(content, "x.sums")
        content["x.sums"] = array_record(sums | {"sums": times * sums["sums"]})
    if message.metadata.message_type == "train":
        content["metrics"]["num-examples"] *= times
        sent = arrays_of(message.content, "arrays")
        content["arrays"] = array_record({name: value + 1 for name, value in sent.items()})
    for key in {"x.confusion", "x.scores"} & content.keys():
        found = {name: times * np.diag(matrix.sum(axis=1)) for name, matrix in arrays_of(content, key).items()}
        content[key] = array_record(found)
    return reply


def tampered(module):
    honest = module.handle_message

    def handle_message(home, message, context):
        file = Path(os.environ["FEDIMB_TEST_TAMPER"])
        told = json.loads(file.read_text()) if file.exists() else {}
        if told.get("kind") == "boast":
            return boast(told["times"], message, honest(home, message, context))
        step = dict(message.content.config_records["x.fedimb"]) if "x.fedimb" in message.content else {}
        if message.metadata.message_type != "train" or step["round"] not in told.get("rounds", []):
            return honest(home, message, context)
        if told["kind"] == "wire":
            return honest(home, message, context)
        if told["kind"] == "sleep":
            if told.get("once"):
                file.unlink()
            time.sleep(told["seconds"])
            return honest(home, message, context)
        if told["kind"] in ("weight", "matrix"):
            return evil(told["kind"], honest(home, message, context))
        from fedimb.records import array_record, arrays_of
        reply, sent = honest(home, message, context), arrays_of(message.content, "arrays")
        arrays = {name: value.copy() for name, value in arrays_of(reply.content, "arrays").items()}
        for name, value in arrays.items():
            if told["kind"] == "nan":
                value.reshape(-1)[0] = float("nan")
            elif told["kind"] == "shape":
                arrays[name] = value.reshape(-1)[:-1].copy()
            elif told["kind"] == "huge":
                arrays[name] = (sent[name] + 1e6 * (value - sent[name])).astype(value.dtype)
        reply.content["arrays"] = array_record(arrays)
        return reply

    module.handle_message = handle_message
    on_the_wire()


def on_the_wire():
    # What somebody between node and coordinator would do: before the order is checked, after the reply is signed.
    from fedimb.deploy.site import orders
    from fedimb.records import array_record, arrays_of

    received, signs = orders.Received.of, orders.sign_reply

    def how(message):
        file = Path(os.environ["FEDIMB_TEST_TAMPER"])
        told = json.loads(file.read_text()) if file.exists() else {}
        step = dict(message.content.config_records["x.fedimb"]) if "x.fedimb" in message.content else {}
        known = told.get("kind") == "wire" and message.metadata.message_type == "train"
        return told["how"].get(str(step["round"])) if known else None

    def altered(content):
        content["arrays"] = array_record({name: value + 1 for name, value in arrays_of(content, "arrays").items()})

    def of(message):
        if how(message) == "order":
            altered(message.content)
        return received(message)

    def sign_reply(home, order, message, reply):
        reply = signs(home, order, message, reply)
        if how(message) == "reply":
            altered(reply.content)
        return reply

    orders.Received.of, orders.sign_reply = staticmethod(of), sign_reply


class Hook:
    def find_spec(self, name, path=None, target=None):
        if name != "fedimb.deploy.site.node_app":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (run(module), tampered(module))[0]
        return spec


sys.meta_path.insert(0, Hook())
"""
