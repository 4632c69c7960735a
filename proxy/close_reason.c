#include "proxy/close_reason.h"

#include "shared/base.h"

enum { WELL, CLIENT, ENDPOINT, LOCAL };

static const struct close_reason_row rows[CLOSE_REASON_COUNT] = {
#define X(name, word_, kind, status_, sentence_)                                         \
    [CLOSE_##name] = {.word = word_,                                                     \
                      .sentence = sentence_,                                             \
                      .is_error = (kind) != WELL,                                        \
                      .status = status_},
#include "proxy/close_reason.def"
#undef X
};

const char *const close_reason_words[CLOSE_REASON_COUNT] = {
#define X(name, word, kind, status, sentence) [CLOSE_##name] = word,
#include "proxy/close_reason.def"
#undef X
};

const struct close_reason_row *close_reason_get(enum close_reason reason)
{
    check(reason < CLOSE_REASON_COUNT);
    return &rows[reason];
}

const char *close_reason_phrase(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 308:
        return "Permanent Redirect";
    case 400:
        return "Bad Request";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 408:
        return "Request Timeout";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 417:
        return "Expectation Failed";
    case 426:
        return "Upgrade Required";
    case 431:
        return "Request Header Fields Too Large";
    case 501:
        return "Not Implemented";
    case 502:
        return "Bad Gateway";
    case 503:
        return "Service Unavailable";
    case 504:
        return "Gateway Timeout";
    case 505:
        return "HTTP Version Not Supported";
    case 508:
        return "Loop Detected";
    default:
        return "Error";
    }
}
