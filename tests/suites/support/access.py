"""Calls every operation of the OpenAPI document without a key, with a bad one and with one that may only read.

access.py API READ_KEY

Nothing is done by these calls: who may call is decided before the input is looked at, and what a key that may only read
can call only reads. Fails when a closed operation answers anything but 401 without a good key, or anything but 403 to the
read key where more is needed.
"""

import json
import re
import sys
import urllib.error
import urllib.request

PROBLEM = "application/problem+json"
NEEDED = re.compile(r"needs a key with the scope (\w+)", re.IGNORECASE)


def call(api, method, path, credential=None):
    """The status and the content type."""
    request = urllib.request.Request(api + path, method=method.upper())
    if credential:
        request.add_header("Authorization", "Bearer " + credential)
    if method == "post":
        request.add_header("Content-Type", "application/json")
        request.data = b"{}"
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            answer.read()
            return answer.status, answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        error.read()
        return error.code, error.headers.get_content_type()


def faults_of(api, read_key, method, path, operation):
    path = re.sub(r"\{\w+\}", "nobody", path)
    scope = NEEDED.search(operation.get("description", ""))
    scope = scope.group(1).lower() if scope else None
    closed = "security" in operation
    without = call(api, method, path)
    bad = call(api, method, path, read_key[:-1] + ("0" if read_key[-1] != "0" else "1"))
    read = call(api, method, path, read_key)
    # `/metrics` is open only when the file says so; the document calls it open.
    if (closed or path == "/metrics") and without != (401, PROBLEM):
        yield f"without a key: {without}"
    if not closed and path != "/metrics" and without[0] in (401, 403):
        yield f"open, but without a key: {without}"
    if bad != (401, PROBLEM):
        yield f"with a bad key: {bad}"
    if scope in ("operate", "admin") and read != (403, PROBLEM):
        yield f"needs the scope {scope}; with a read key: {read}"
    if scope not in ("operate", "admin") and read[0] in (401, 403):
        yield f"may be read; with a read key: {read}"
    if any(answer[0] >= 500 for answer in (without, bad, read)):
        yield f"a fault of the server: {without} {bad} {read}"


def main(api, read_key):
    with urllib.request.urlopen(api + "/openapi.json", timeout=15) as answer:
        paths = json.load(answer)["paths"]
    operations = [(method, path, item[method]) for path, item in paths.items() for method in item]
    closed = sum("security" in operation for _, _, operation in operations)
    higher = sum(bool(re.search("operate|admin", operation.get("description", ""))) for _, _, operation in operations)
    print(f"{len(operations)} operations: {closed} need a key, {higher} more than a read key")
    faults = [
        f"{method.upper()} {path}: {fault}"
        for method, path, operation in operations
        for fault in faults_of(api, read_key, method, path, operation)
    ]
    if faults or not closed or not higher:
        sys.exit("\n".join(faults) or "the document closes nothing")


if __name__ == "__main__":
    main(*sys.argv[1:])
