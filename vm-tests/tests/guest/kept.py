# What ledger and identity have on their disks: whether the chain is whole, its length, and whether
# an author's key is there to sign with. usage: kept.py AUTHOR
import json
import sys

from grpc import call, field, fields

SOCKETS = "/run/blackhole/sockets"
verified = fields(call(f"{SOCKETS}/ledger.sock", "/blackhole.ledger.v1.Ledger/Verify"))
sign = field(1, sys.argv[1]) + field(2, "still here")
signature = fields(call(f"{SOCKETS}/identity.sock", "/blackhole.identity.v1.Identity/Sign", sign))[1]
told = {"valid": verified.get(1) == 1, "entries": verified.get(2, 0), "signature": len(signature)}
print(json.dumps(told))
