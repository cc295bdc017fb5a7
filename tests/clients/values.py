"""Payload values and errors on their way between the control lines, the client libraries and WAMP."""

import base64


class Failure(Exception):
    """A WAMP error, either way: raised by a procedure here, or met by a request of ours."""

    def __init__(self, uri, args=None, kwargs=None):
        super().__init__(uri)
        self.uri = uri
        self.arguments = list(args or [])
        self.keywords = dict(kwargs or {})


def rebuild(value, leaf):
    """The value with `leaf` applied to all that is neither list nor dict."""
    if isinstance(value, (list, tuple)):
        return [rebuild(item, leaf) for item in value]
    if isinstance(value, dict):
        return {key: rebuild(item, leaf) for key, item in value.items()}
    return leaf(value)


def is_bytes(value):
    return isinstance(value, (bytes, bytearray, memoryview))


def to_control(value):
    """A payload value as the control lines carry it."""

    def leaf(item):
        # wampy.js tags bytes in CBOR (RFC 8746), and both Python clients hand the tag to their user.
        item = item.value if getattr(item, "tag", None) == 64 else item
        return {"$bytes": base64.b64encode(item).decode()} if is_bytes(item) else item

    return rebuild(value, leaf)


def from_control(value):
    """The payload value behind what `to_control` made."""
    if isinstance(value, list):
        return [from_control(item) for item in value]
    if isinstance(value, dict):
        if "$bytes" in value:
            return base64.b64decode(value["$bytes"])
        return {key: from_control(item) for key, item in value.items()}
    return value


def to_json(value):
    """Bytes as WAMP wants them in JSON, for a library that leaves that to its user."""
    return rebuild(value, lambda item: "\0" + base64.b64encode(item).decode() if is_bytes(item) else item)


def from_json(value):
    """The value behind what `to_json` made."""
    return rebuild(
        value,
        lambda item: base64.b64decode(item[1:], validate=True)
        if isinstance(item, str) and item.startswith("\0") else item)
