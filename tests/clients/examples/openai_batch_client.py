"""The batch examples of OpenAI's guide: upload, create, poll, results, list, cancel, expired; strictly validated."""

import json
import os
import tempfile
import time

import openai
from openai import OpenAI

URL, KEY = os.environ["FANOUT_URL"] + "/v1", os.environ["FANOUT_KEY"]
client = OpenAI(base_url=URL, api_key=KEY, _strict_response_validation=True)
report = {}


def line(custom_id, model, **body):
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Hello world!"}]
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": model, "messages": messages, "max_tokens": 1000, **body},
    }


def uploaded(*lines):
    path = os.path.join(tempfile.mkdtemp(), "batchinput.jsonl")
    with open(path, "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return client.files.create(file=open(path, "rb"), purpose="batch")


def ended(batch):
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    return batch


def created(file, **given):
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", **{"completion_window": "24h", **given}
    )


def read(file_id):
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()] if file_id else []


batch_input_file = uploaded(
    line("request-1", "gpt-6-luna"), line("request-2", ["gpt-6-luna", "gpt-6-sol"]), line("request-3", "always-500")
)
report["file"] = client.files.retrieve(batch_input_file.id).model_dump()
batch = created(batch_input_file, metadata={"description": "nightly eval job"})
report["created"] = batch.model_dump()
done = ended(batch)
report["done"] = done.model_dump()
report["output"], report["errors"] = read(done.output_file_id), read(done.error_file_id)

report["failed"] = ended(created(uploaded(line("request-1", "gtp-6-luna"), line("request-1", "gpt-6-luna")))).model_dump()

slow = [line(f"request-{number}", "slow") for number in range(60)]
batch = created(uploaded(line("fast", "gpt-6-luna"), *slow))
while not client.batches.retrieve(batch.id).request_counts.completed:
    time.sleep(0.05)
client.batches.cancel(batch.id)
cancelled = ended(batch)
report["cancelled"] = [cancelled.status, sorted({line["error"]["code"] for line in read(cancelled.error_file_id)})]

expired = ended(created(uploaded(line("fast", "gpt-6-luna"), *slow), completion_window="2s"))
report["expired"] = [expired.status, sorted({line["error"]["code"] for line in read(expired.error_file_id)})]

report["listed"] = [batch.id for batch in client.batches.list(limit=2)]  # turns the pages itself
report["files"] = len(list(client.files.list(purpose="batch", limit=1)))
report["deleted"] = client.files.delete(batch_input_file.id).deleted
try:
    client.files.retrieve(batch_input_file.id)
except openai.NotFoundError as error:
    report["gone"] = error.code
print(json.dumps(report))
