/* Reading one HTTP/1.1 message from a byte stream, as far as a load generator needs it: the end of
   the message, its status and the size of its body. Judges nothing else and writes nothing. */
#ifndef BENCH_MESSAGE_H
#define BENCH_MESSAGE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MESSAGE_MORE, MESSAGE_DONE, MESSAGE_BAD };
enum { AWAIT_HEAD, AWAIT_LENGTH, AWAIT_CHUNK_SIZE, AWAIT_CHUNK_LINE_END, AWAIT_CHUNK_DATA,
       AWAIT_CHUNK_DATA_END, AWAIT_TRAILER, AWAIT_CLOSE };

#define MESSAGE_HEAD_CAPACITY (64 * 1024)

typedef struct {
  uint8_t phase;
  uint8_t is_response;
  uint8_t says_close;
  uint8_t lacks_required;
  uint8_t line_is_empty;      /* trailers: nothing seen on this line yet */
  uint16_t status;
  uint32_t held_len;
  uint64_t left;              /* bytes of the length or of the chunk still to come */
  uint64_t body_bytes;
  char *held;                 /* a head that came in pieces; NULL otherwise */
} Message;

/* A text every request head must hold: shows that a filter in the path has really run. */
static const char *message_required;

static inline void message_reset(Message *message, int is_response) {
  char *held = message->held;
  memset(message, 0, sizeof *message);
  message->held = held;
  message->is_response = (uint8_t)is_response;
}

static inline void message_release(Message *message) {
  free(message->held);
  message->held = NULL;
}

static inline int field_is(const char *line, const char *end, const char *name, size_t name_len) {
  return (size_t)(end - line) > name_len && line[name_len] == ':' &&
         strncasecmp(line, name, name_len) == 0;
}

static inline int value_has(const char *value, const char *end, const char *word, size_t word_len) {
  for (; value + word_len <= end; value++)
    if (strncasecmp(value, word, word_len) == 0) return 1;
  return 0;
}

static inline int message_read_head(Message *message, const char *head, size_t head_len) {
  const char *end = head + head_len, *line = head;
  int has_length = 0, is_chunked = 0;
  if (message->is_response) {
    if (head_len < 15 || memcmp(head, "HTTP/1.", 7)) return MESSAGE_BAD;
    message->status = (uint16_t)((head[9] - '0') * 100 + (head[10] - '0') * 10 + head[11] - '0');
  } else {
    message->lacks_required = message_required &&
        !memmem(head, head_len, message_required, strlen(message_required));
  }
  while ((line = memchr(line, '\n', (size_t)(end - line))) && ++line < end) {
    switch (*line | 0x20) {
    case 'c':
      if (field_is(line, end, "content-length", 14)) {
        message->left = strtoull(line + 15, NULL, 10);
        has_length = 1;
      } else if (field_is(line, end, "connection", 10)) {
        const char *line_end = memchr(line, '\n', (size_t)(end - line));
        message->says_close = (uint8_t)value_has(line + 11, line_end, "close", 5);
      }
      break;
    case 't':
      if (field_is(line, end, "transfer-encoding", 17)) is_chunked = 1;
      break;
    }
  }
  if (message->is_response && message->status / 100 == 1) return MESSAGE_BAD;
  if (is_chunked) message->phase = AWAIT_CHUNK_SIZE, message->left = 0;
  else if (has_length) message->phase = AWAIT_LENGTH;
  else if (message->is_response) message->phase = AWAIT_CLOSE;
  else message->phase = AWAIT_LENGTH, message->left = 0;
  return MESSAGE_MORE;
}

/* Collects the head, in place when it came in one piece. */
static inline int message_feed_head(Message *message, const char *data, uint32_t len,
                                    uint32_t *used) {
  const char *tail;
  if (!message->held_len && (tail = memmem(data, len, "\r\n\r\n", 4))) {
    *used = (uint32_t)(tail - data) + 4;
    return message_read_head(message, data, *used);
  }
  if (!message->held) message->held = malloc(MESSAGE_HEAD_CAPACITY);
  uint32_t before = message->held_len, room = MESSAGE_HEAD_CAPACITY - before;
  uint32_t taken = len < room ? len : room;
  memcpy(message->held + before, data, taken);
  tail = memmem(message->held, before + taken, "\r\n\r\n", 4);
  if (!tail) {
    message->held_len += taken;
    *used = taken;
    return taken == len ? MESSAGE_MORE : MESSAGE_BAD;
  }
  uint32_t head_len = (uint32_t)(tail - message->held) + 4;
  *used = head_len - before;
  int verdict = message_read_head(message, message->held, head_len);
  message_release(message);
  message->held_len = 0;
  return verdict;
}

static inline int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes bytes until the message ends. `*used` <= len says how many; the rest is not looked at. */
static inline int message_feed(Message *message, const char *data, uint32_t len, uint32_t *used) {
  uint32_t at = 0;
  *used = 0;
  if (message->phase == AWAIT_HEAD) {
    int verdict = message_feed_head(message, data, len, &at);
    *used = at;
    if (verdict != MESSAGE_MORE || message->phase == AWAIT_HEAD) return verdict;
  }
  if (message->phase == AWAIT_LENGTH && !message->left) return MESSAGE_DONE;
  while (at < len) {
    char c = data[at];
    switch (message->phase) {
    case AWAIT_LENGTH:
    case AWAIT_CHUNK_DATA:
    case AWAIT_CLOSE: {
      uint64_t take = len - at;
      if (message->phase != AWAIT_CLOSE) {
        if (take > message->left) take = message->left;
        message->left -= take;
      }
      message->body_bytes += take;
      at += (uint32_t)take;
      *used = at;
      if (message->phase == AWAIT_LENGTH && !message->left) return MESSAGE_DONE;
      if (message->phase == AWAIT_CHUNK_DATA && !message->left) message->phase = AWAIT_CHUNK_DATA_END;
      continue;
    }
    case AWAIT_CHUNK_SIZE:
      if (hex_digit(c) >= 0) message->left = message->left * 16 + (uint64_t)hex_digit(c);
      else message->phase = AWAIT_CHUNK_LINE_END;
      break;
    case AWAIT_CHUNK_LINE_END:
      if (c != '\n') break;
      message->line_is_empty = 1;
      message->phase = message->left ? AWAIT_CHUNK_DATA : AWAIT_TRAILER;
      break;
    case AWAIT_CHUNK_DATA_END:
      if (c == '\n') message->phase = AWAIT_CHUNK_SIZE, message->left = 0;
      else if (c != '\r') return MESSAGE_BAD;
      break;
    case AWAIT_TRAILER:
      if (c == '\n') {
        if (message->line_is_empty) {
          *used = at + 1;
          return MESSAGE_DONE;
        }
        message->line_is_empty = 1;
      } else if (c != '\r') {
        message->line_is_empty = 0;
      }
      break;
    }
    *used = ++at;
  }
  return MESSAGE_MORE;
}

#endif
