"""POSTs a body of BYTES to URL, TRIES times, with httpx; prints how often each outcome came.

usage: python refused_py.py URL BYTES TRIES
"""

import collections
import json
import sys

import httpx

url, size, tries = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
outcomes = collections.Counter()
with httpx.Client(timeout=20) as client:
    for _ in range(tries):
        try:
            outcomes[str(client.post(url, headers=headers, content=b" " * size).status_code)] += 1
        except httpx.HTTPError as error:
            outcomes[repr(error)] += 1
print(json.dumps(outcomes))
