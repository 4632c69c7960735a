#include "tests/simulation/visitor_words.h"

#include <stdio.h>
#include <string.h>

/* Words with a space between; %n is a number, %c a channel, %r a room, %k a few bytes, %j a payload. */
static const char *const commands[] = {
    "PING",
    "PING %k",
    "ECHO %k",
    "QUIT",
    "RESET",
    "TIME",
    "ROLE",
    "COMMAND",
    "COMMAND COUNT",
    "COMMAND DOCS PING",
    "CONFIG GET *",
    "INFO",
    "INFO server",
    "SELECT 0",
    "SELECT %n",
    "AUTH %k",
    "AUTH %k %k",
    "HELLO",
    "HELLO 2",
    "HELLO 3",
    "HELLO 3 AUTH default %k SETNAME %k",
    "HELLO %n",
    "CLIENT GETNAME",
    "CLIENT ID",
    "CLIENT INFO",
    "CLIENT LIST",
    "CLIENT LIST ID %n",
    "CLIENT LIST TYPE pubsub",
    "CLIENT SETNAME %k",
    "CLIENT SETNAME pod3",
    "CLIENT SETINFO lib-name %k",
    "CLIENT SETINFO lib-ver %k",
    "CLIENT NO-EVICT on",
    "CLIENT NO-TOUCH off",
    "CLIENT KILL ID %n",
    "CLIENT KILL %k",
    "CLIENT KILL TYPE normal",
    "CLIENT KILL ADDR 10.0.0.99:1 SKIPME no",
    "CLIENT REPLY OFF",
    "CLIENT %k",
    "SUBSCRIBE %c",
    "SUBSCRIBE %c %c %k",
    "UNSUBSCRIBE",
    "UNSUBSCRIBE %c",
    "PSUBSCRIBE %k*",
    "PSUBSCRIBE *",
    "PUNSUBSCRIBE",
    "PUNSUBSCRIBE *",
    "PUBLISH %c %j",
    "PUBLISH %k %j",
    "PUBLISH %c",
    "PUBLISH sidrail1:default:c %j",
    "PUBLISH sidrail1:default:p:0000 %j",
    "PUBSUB CHANNELS",
    "PUBSUB CHANNELS %k*",
    "PUBSUB NUMSUB %c %c",
    "PUBSUB NUMPAT",
    "PUBSUB HELP",
    "SENTINEL MASTERS",
    "MULTI",
    "EXEC",
    "DISCARD",
    "WATCH %k",
    "SIDRAIL HELLO 1 own pickle",
    "SIDRAIL HELLO 1 echo auto %k %n",
    "SIDRAIL HELLO %n own %k",
    "SIDRAIL ROOMS %n 0 / s:%r / s:%r",
    "SIDRAIL ROOMS %n 1 / s:%r",
    "SIDRAIL JOIN 1 %n / s:%r",
    "SIDRAIL LEAVE 1 %n / s:%r",
    "SIDRAIL ALL",
    "SIDRAIL SEEN %n",
    "SIDRAIL %k",
    "GET %k",
    "SET %k %k",
    "%k",
    "EVAL %k 0",
};

static const char *const manager[] = {
    "SUBSCRIBE flask-socketio.sidrail.00000000000000000000000000000%n flask-socketio",
    "SIDRAIL HELLO 1 own pickle",
    "SIDRAIL HELLO 1 echo json15",
    "SIDRAIL ROOMS 1 0 / s:%r",
    "SIDRAIL ROOMS 1 1 / s:%r / s:%r",
    "SIDRAIL JOIN 1 1 / s:%r",
    "SIDRAIL JOIN 1 2 / s:%r",
    "SIDRAIL LEAVE 1 3 / s:%r",
    "SIDRAIL JOIN 1 4 / i:7",
    "SIDRAIL SEEN %n",
    "SIDRAIL ALL",
    "UNSUBSCRIBE flask-socketio",
    "PING",
    "QUIT",
};

static const char *const lines[] = {
    "PING\r\n",
    "QUIT\r\n",
    "GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: broker\r\nContent-Length: 20\r\n\r\nPUBLISH news x\r\n",
    "*0\r\n",
    "*-1\r\n",
    "*1\r\n$-1\r\n",
    "*2\r\n$4\r\nPING\r\n$99999999999\r\n",
    "*1048577\r\n",
    "\r\n\r\n\r\n",
    "*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$16777217\r\n",
    "$5\r\nhello\r\n",
    "+OK\r\n",
    "*1\r\n:1\r\n",
    "SUBSCRIBE \"a b\" c\r\n",
    "PING \"\r\n",
    "\x16\x03\x01\x02",
    "*2\r\n$6\r\nCLIENT\r\n$4\r\nLIST\r\n",
    "\0\0\0\0\n",
};

static void add_word(struct bytes *word, const char *text, uint64_t *drawn)
{
    for (const char *at = text; *at != '\0' && *at != ' '; at++) {
        char piece[64];
        if (*at != '%' || at[1] == '\0') {
            bytes_add(word, at, 1);
            continue;
        }
        uint64_t draw = world_stream(drawn);
        static const char *const channels[] = {"flask-socketio", "news", "{tag}other"};
        switch (*++at) {
        case 'n':
            snprintf(piece, sizeof(piece), "%llu",
                     (unsigned long long)(draw % 4 == 0 ? draw : draw % 100));
            break;
        case 'c':
            snprintf(piece, sizeof(piece), "%s", channels[draw % 3]);
            break;
        case 'r':
            snprintf(piece, sizeof(piece), "room%u", (unsigned)(draw % 8));
            break;
        case 'j':
            snprintf(piece, sizeof(piece),
                     draw % 2 == 0 ? "{\"method\": \"emit\", \"event\": 1}"
                                   : "\x80\x02}.");
            break;
        default:
            snprintf(piece, sizeof(piece), "k%u", (unsigned)(draw % 1000));
            break;
        }
        bytes_add(word, piece, strlen(piece));
    }
}

static void add_command(struct bytes *out, const char *text, uint64_t *drawn)
{
    unsigned count = 1;
    for (const char *at = text; *at != '\0'; at++)
        count += *at == ' ';
    char head[32];
    int len = snprintf(head, sizeof(head), "*%u\r\n", count);
    bytes_add(out, head, (size_t)len);
    for (const char *at = text; at != NULL;) {
        struct bytes word = {0};
        add_word(&word, at, drawn);
        len = snprintf(head, sizeof(head), "$%zu\r\n", word.len);
        bytes_add(out, head, (size_t)len);
        bytes_add(out, word.len > 0 ? bytes_data(&word) : "", word.len);
        bytes_add(out, "\r\n", 2);
        bytes_free(&word);
        at = strchr(at, ' ');
        at = at != NULL ? at + 1 : NULL;
    }
}

void visitor_words(unsigned kind, uint64_t drawn, struct bytes *out)
{
    uint64_t state = drawn;
    unsigned count = 1 + (unsigned)(world_stream(&state) % 6);
    for (unsigned i = 0; i < count; i++) {
        uint64_t draw = world_stream(&state);
        if (kind % WORDS_KIND_COUNT == WORDS_GARBAGE) {
            const char *line = lines[draw % ARRAY_LEN(lines)];
            bytes_add(out, line, strlen(line) + (line[0] == '\0' ? 5 : 0));
        } else if (kind % WORDS_KIND_COUNT == WORDS_MANAGER) {
            add_command(out, manager[i == 0 ? 0 : draw % ARRAY_LEN(manager)], &state);
        } else {
            add_command(out, commands[draw % ARRAY_LEN(commands)], &state);
        }
    }
    if (kind % WORDS_KIND_COUNT == WORDS_CUT && out->len > 1)
        out->len = 1 + (size_t)(world_stream(&state) % (out->len - 1));
}
