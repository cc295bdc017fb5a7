"""Who logs in, and what is shown for it: for the checks of `run` and for `logins`."""

import base64
import hashlib
import hmac
import json
import time

PASSWORD = "open sesame"
# Made by `crosspoint keygen`; PASSWORD by `crosspoint hash-password --method scram --memory 64`.
PRIVATE_KEY = "92ed7d9e63379df7699926d6e0a7c3648321e7050bfbb4b26b801e4945289377"
PUBLIC_KEY = "6ef8e3f8251d81959893de332acddff2abf0590d112266ec08b2254b366e3c00"
SCRAM = {
    "kdf": "argon2id13",
    "iterations": 2,
    "memory": 64,
    "salt": "gXZKq6GB/W/YPoNpSlF0TA==",
    "stored_key": "KGrd7TcoWlABoFdMGXcKniH1kcRaIMRgzBx8BZXm7pw=",
    "server_key": "cnjnoopDmjBV3LkuCuI4YxT4jOwnV2jSMm6T1KlN0r8=",
}
TOKEN_SECRET = "a secret for tokens of 32 bytes."


def login(method, authid, secret, public_key=PUBLIC_KEY):
    """How `Peer` is told to log in. The public key is for the one library that does not derive it."""
    return {"method": method, "authid": authid, "secret": secret, "publicKey": public_key}


def token(authid, role, secret=TOKEN_SECRET):
    """A JSON Web Token, signed with HS256, that is good for an hour."""

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"sub": authid, "role": role, "exp": int(time.time()) + 3600}
    signed = b".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256", "typ": "JWT"}, claims))
    signature = hmac.digest(secret.encode(), signed, hashlib.sha256)
    return b".".join((signed, part(signature))).decode()
