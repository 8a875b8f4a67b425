# Fanout alone: docker build -t fanout . && docker run --rm -p 127.0.0.1:8080:8080 -e FANOUT_API_KEYS fanout
FROM python:3.13-slim AS build
COPY . /src
RUN python -m venv /opt/fanout && /opt/fanout/bin/pip install --no-cache-dir --require-hashes --no-deps -r /src/requirements.lock \
    && /opt/fanout/bin/pip install --no-cache-dir '/src[bedrock,evaluate,parquet,postgresql,vertex]'

FROM python:3.13-slim
COPY --from=build /opt/fanout /opt/fanout
RUN useradd --system --uid 10001 --no-create-home fanout && install -d -o fanout /var/lib/fanout
USER fanout
ENV PATH=/opt/fanout/bin:$PATH \
    FANOUT_STORE=/var/lib/fanout/fanout.db \
    FANOUT_LOG_FORMAT=json
VOLUME /var/lib/fanout
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
# FANOUT_API_KEYS must be set: without keys, Fanout serves only loopback addresses and refuses to start on another.
ENTRYPOINT ["fanout"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
