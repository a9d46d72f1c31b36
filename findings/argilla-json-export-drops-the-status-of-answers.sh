#!/bin/sh
# argilla 2.8.0, datasets 5.2.0.
# An annotator may keep an answer as a draft or discard it; records.to_json() is the documented way to take answers out.
# Expected: each answer in the file says whether it was submitted, or only submitted ones are there.
# Seen: the file has drafts and discarded answers beside submitted ones, and no status of any; read back with
# Record.from_dict(), none has a status. The flattened list of the same records has it (QUESTION.responses.status).
# Also: argilla imports requests, which it does not declare and which datasets 5 does not bring any more.
# Source: argilla/records/_resource.py, RecordResponses.to_dict; argilla/records/_io/_json.py, JsonIO.to_json.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check argilla==2.8.0 datasets==5.2.0 requests==2.34.2
env/bin/python - <<'PY'
import json
import uuid

import argilla
from argilla.records._io import GenericIO, JsonIO

statuses = ["submitted", "draft", "discarded"]
answers = [argilla.Response("better", "response1", user_id=uuid.uuid4(), status=status) for status in statuses]
record = argilla.Record(fields={"prompt": "2 + 2?", "response1": "4", "response2": "5"}, responses=answers)
(exported,) = json.loads(JsonIO.to_json([record], "records.json").read_text())
(flat,) = GenericIO.to_list([record], flatten=True)
again = [response.status for response in argilla.Record.from_dict(exported).responses]
keys = [sorted(answer) for answer in exported["responses"]["better"]]
print("in records.json:", keys)
print("read back:", again)
print("in the flattened list:", flat["better.responses.status"])
assert keys == [["user_id", "value"]] * 3
assert again == [None] * 3
assert flat["better.responses.status"] == statuses
PY
