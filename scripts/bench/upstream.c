// A fast stand-in for a model provider: OpenAI's chat format, keep-alive, one thread, epoll.
//
// Build: cc -O2 -o upstream upstream.c
// Usage: upstream PORT [LATENCY_MS [CHUNKS [GAP_MS [FAULT_EVERY]]]]
//   Any request is answered with one chat completion of about 600 bytes, LATENCY_MS after it came.
//   With "stream": true in the body: CHUNKS writes of server-sent events, GAP_MS apart; 0: all in one burst.
//   FAULT_EVERY k: every k-th request fails, by turns with status 500 and with a closed connection; 0: none.
//   GET /counts tells what was served so far, and the most at once; GET /windows/MS the most requests that came within any MS
//   milliseconds. Neither is itself counted.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 20000
#define MAX_CHUNKS 4096
#define BUFFER 65536
#define HEAD "{\"id\":\"chatcmpl-9f1a2b3c4d5e6f708192a3b4\",\"object\":\"chat.completion%s\",\"created\":1760000000,\"model\":\"mock-model-1\","
#define USAGE "\"usage\":{\"prompt_tokens\":14,\"completion_tokens\":47,\"total_tokens\":61,\"prompt_tokens_details\":{\"cached_tokens\":0}}"
#define TEXT \
  "The capital of France is Paris. It lies on the Seine in the north of the country, and it has been the seat of government for " \
  "most of its history since the tenth century. The city proper holds about two million people."

typedef struct { char *text; size_t length; } Bytes;
typedef struct { char *buffer; size_t length; int generation; } Connection;
typedef enum { ANSWER, FAULT, DROP, STREAM } Kind;
typedef struct { double due; int fd, generation, index; Kind kind; } Event;  // index: which chunk of a STREAM

static Connection connections[MAX_FD];
static Event *heap;
static size_t heap_length, heap_capacity;
static Bytes answer, fault, burst, chunks[MAX_CHUNKS];
static int latency_ms, chunk_count = 100, gap_ms, fault_every;
static unsigned long long requests, faults, chunks_sent;
static double *times;  // when each request came
static size_t times_capacity, most_at_once;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

// -- what is due when: a binary heap

static void push(Event event) {
  if (heap_length == heap_capacity) heap = realloc(heap, (heap_capacity = heap_capacity ? heap_capacity * 2 : 4096) * sizeof(Event));
  size_t i = heap_length++;
  for (size_t parent; i && heap[parent = (i - 1) / 2].due > event.due; i = parent) heap[i] = heap[parent];
  heap[i] = event;
  if (heap_length > most_at_once) most_at_once = heap_length;
}

static Event pop(void) {
  Event first = heap[0], last = heap[--heap_length];
  size_t i = 0;
  for (size_t child; (child = 2 * i + 1) < heap_length; i = child) {
    if (child + 1 < heap_length && heap[child + 1].due < heap[child].due) child++;
    if (last.due <= heap[child].due) break;
    heap[i] = heap[child];
  }
  heap[i] = last;
  return first;
}

// -- answers, made once

static Bytes copied(const char *text, size_t length) {
  Bytes bytes = {malloc(length), length};
  memcpy(bytes.text, text, length);
  return bytes;
}

static Bytes whole(const char *status, const char *body) {
  char text[4096];
  int n = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nx-request-id: req_0123456789abcdef\r\n\r\n%s",
                   status, strlen(body), body);
  return copied(text, n);
}

// One chunk of the stream. The first also opens the response; the last closes it, with the usage and the terminator.
static Bytes stream_chunk(int index) {
  char body[2048], text[4096];
  int first = index == 0, last = index == chunk_count - 1;
  int n = snprintf(body, sizeof body, "data: " HEAD "\"system_fingerprint\":\"fp_44709d6fcb\",\"choices\":[{\"index\":0,\"delta\":%s,\"logprobs\":null,\"finish_reason\":%s}]}\n\n",
                   ".chunk", last ? "{}" : first ? "{\"role\":\"assistant\",\"content\":\"\"}" : "{\"content\":\" token\"}", last ? "\"stop\"" : "null");
  if (last) n += snprintf(body + n, sizeof body - n, "data: " HEAD "\"choices\":[]," USAGE "}\n\ndata: [DONE]\n\n", ".chunk");
  const char *opening = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
  int m = snprintf(text, sizeof text, "%s%x\r\n%s\r\n%s", first ? opening : "", n, body, last ? "0\r\n\r\n" : "");
  return copied(text, m);
}

static void make_answers(void) {
  char body[2048];
  snprintf(body, sizeof body, HEAD "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"" TEXT "\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}]," USAGE ",\"system_fingerprint\":\"fp_44709d6fcb\"}", "");
  answer = whole("200 OK", body);
  fault = whole("500 Internal Server Error", "{\"error\":{\"message\":\"The server had an error while processing your request.\",\"type\":\"server_error\",\"param\":null,\"code\":null}}");
  for (int i = 0; i < chunk_count; i++) {
    chunks[i] = stream_chunk(i);
    burst.text = realloc(burst.text, burst.length + chunks[i].length);
    memcpy(burst.text + burst.length, chunks[i].text, chunks[i].length);
    burst.length += chunks[i].length;
  }
}

// -- serving

static void end(int fd) {
  connections[fd].generation++;  // what is still due for this connection is void
  connections[fd].length = 0;
  close(fd);
}

static void send_all(int fd, Bytes bytes) {
  while (bytes.length) {
    ssize_t sent = write(fd, bytes.text, bytes.length);
    if (sent < 0) {
      // A reader that takes nothing for a second is given up: everyone else waits meanwhile.
      if (errno == EAGAIN && poll(&(struct pollfd){fd, POLLOUT, 0}, 1, 1000) > 0) continue;
      shutdown(fd, SHUT_RDWR);
      return;
    }
    bytes.text += sent;
    bytes.length -= sent;
  }
}

static void fire(Event event) {
  if (connections[event.fd].generation != event.generation) return;
  if (event.kind == ANSWER) send_all(event.fd, answer);
  else if (event.kind == FAULT) send_all(event.fd, fault);
  else if (event.kind == DROP) shutdown(event.fd, SHUT_RDWR);
  else if (gap_ms == 0) { chunks_sent += chunk_count; send_all(event.fd, burst); }
  else {
    chunks_sent++;
    send_all(event.fd, chunks[event.index]);
    event.due += gap_ms * 1e-3;
    if (++event.index < chunk_count) push(event);
  }
}

static void send_body(int fd, const char *body) {
  Bytes bytes = whole("200 OK", body);
  send_all(fd, bytes);
  free(bytes.text);
}

static void send_counts(int fd) {
  char body[256];
  snprintf(body, sizeof body, "{\"requests\":%llu,\"faults\":%llu,\"chunks\":%llu,\"at_once\":%zu}", requests, faults, chunks_sent,
           most_at_once);
  send_body(fd, body);
}

static void send_window(int fd, double ms) {
  size_t most = 0;
  for (size_t first = 0, last = 0; last < requests; last++) {
    while (times[last] - times[first] >= ms * 1e-3) first++;
    if (last + 1 - first > most) most = last + 1 - first;
  }
  char body[64];
  snprintf(body, sizeof body, "{\"requests\":%zu}", most);
  send_body(fd, body);
}

static Kind next_kind(const char *body, size_t length) {
  if (requests == times_capacity) times = realloc(times, (times_capacity = times_capacity ? times_capacity * 2 : 65536) * sizeof(double));
  times[requests++] = now();
  if (fault_every && requests % fault_every == 0) return ++faults % 2 ? FAULT : DROP;
  int stream = memmem(body, length, "\"stream\":true", 13) || memmem(body, length, "\"stream\": true", 14);
  return stream ? STREAM : ANSWER;
}

// The length of the first request in the buffer, 0 while it is not all there; a chunked body must not hold "0\r\n\r\n" itself.
static size_t request_length(Connection *c, size_t *head_length) {
  c->buffer[c->length] = 0;
  char *head_end = memmem(c->buffer, c->length, "\r\n\r\n", 4);
  if (!head_end) return 0;
  *head_length = head_end + 4 - c->buffer;
  *head_end = 0;
  char *length_field = strcasestr(c->buffer, "\r\ncontent-length:");
  char *coding_field = strcasestr(c->buffer, "\r\ntransfer-encoding:");
  size_t total = *head_length + (length_field ? strtoul(length_field + 17, NULL, 10) : 0);
  *head_end = '\r';
  if (!length_field && coding_field) {
    char *last = memmem(c->buffer + *head_length, c->length - *head_length, "0\r\n\r\n", 5);
    return last ? last + 5 - c->buffer : 0;
  }
  return c->length < total ? 0 : total;
}

static void take_requests(int fd) {
  Connection *c = &connections[fd];
  for (size_t total, head_length; c->length && (total = request_length(c, &head_length));) {
    if (!strncmp(c->buffer, "GET /counts", 11)) send_counts(fd);
    else if (!strncmp(c->buffer, "GET /windows/", 13)) send_window(fd, strtod(c->buffer + 13, NULL));
    else {
      Event event = {now() + latency_ms * 1e-3, fd, c->generation, 0, next_kind(c->buffer + head_length, total - head_length)};
      if (latency_ms) push(event);
      else fire(event);
    }
    memmove(c->buffer, c->buffer + total, c->length - total);
    c->length -= total;
  }
}

static void read_from(int fd) {
  Connection *c = &connections[fd];
  ssize_t n = read(fd, c->buffer + c->length, BUFFER - c->length);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) { end(fd); return; }
  c->length += n;
  take_requests(fd);
}

static void accept_all(int listener, int poller) {
  for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
    if (fd >= MAX_FD) { close(fd); continue; }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (!connections[fd].buffer) connections[fd].buffer = malloc(BUFFER + 1);
    connections[fd].length = 0;
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.fd = fd});
  }
}

// Waits for sockets or for what is due next, to the microsecond: epoll_wait knows whole milliseconds only.
static int wait_for_events(int poller, struct epoll_event *events, int most) {
  if (!heap_length) return epoll_wait(poller, events, most, -1);
  double left = heap[0].due - now();
  if (left < 0) left = 0;
  struct timespec timeout = {(time_t)left, (long)((left - (time_t)left) * 1e9)};
  return epoll_pwait2(poller, events, most, &timeout, NULL);
}

static int listen_on(int port) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) { perror("upstream: bind"); exit(1); }
  return listener;
}

int main(int count, char **values) {
  if (count < 2) { fprintf(stderr, "usage: upstream PORT [LATENCY_MS [CHUNKS [GAP_MS [FAULT_EVERY]]]]\n"); return 2; }
  if (count > 2) latency_ms = atoi(values[2]);
  if (count > 3) chunk_count = atoi(values[3]);
  if (count > 4) gap_ms = atoi(values[4]);
  if (count > 5) fault_every = atoi(values[5]);
  if (chunk_count < 2 || chunk_count > MAX_CHUNKS) { fprintf(stderr, "upstream: CHUNKS is 2 to %d\n", MAX_CHUNKS); return 2; }
  signal(SIGPIPE, SIG_IGN);
  make_answers();
  int listener = listen_on(atoi(values[1])), poller = epoll_create1(0);
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN, .data.fd = listener});
  for (struct epoll_event events[512];;) {
    int ready = wait_for_events(poller, events, 512);
    for (int i = 0; i < ready; i++) {
      if (events[i].data.fd == listener) accept_all(listener, poller);
      else read_from(events[i].data.fd);
    }
    for (double t = now(); heap_length && heap[0].due <= t;) fire(pop());
  }
}
