"""A stranger's client: LangChain over OpenAI's."""

import json
import os

from langchain_openai import ChatOpenAI, OpenAI

given = {"base_url": os.environ["FANOUT_URL"] + "/v1", "api_key": os.environ["FANOUT_KEY"]}
chat = ChatOpenAI(model="gpt-6-luna", temperature=0, **given)
text = OpenAI(model="nousresearch/nous-hermes-llama2-13b", max_tokens=6, **given)
report = {}

answer = chat.invoke([("system", "You are helpful."), ("human", "I love programming.")])
report["chat"] = [answer.content, answer.usage_metadata["total_tokens"], answer.response_metadata["finish_reason"]]
report["stream"] = [chunk.content for chunk in chat.stream("Hello")]
report["batch"] = [answer.content for answer in chat.batch(["one", "two", "three"])]
report["text"] = text.invoke("Hello")
report["text_stream"] = list(text.stream("Hello"))
responses = ChatOpenAI(model="gpt-6-luna", use_responses_api=True, **given)
answer = responses.invoke("I love programming.")
report["responses"] = [answer.text, answer.usage_metadata["total_tokens"]]
report["responses_stream"] = "".join(chunk.text for chunk in responses.stream("Hello"))
print(json.dumps(report))
