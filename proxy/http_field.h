/*
 * The field section of a head: lines of "name: value", the known names, and what the
 * Connection field says about the others. http_head is the one that parses with it;
 * everybody looks up here.
 */
#pragma once

#include "proxy/body_framing.h"
#include "shared/base.h"
#include "shared/parse.h"
#include "shared/slice.h"

#include <stdbool.h>

enum {
    HTTP_FIELDS_MAX = 128,
    HTTP_LINE_MAX = 16384,        /* one field line, CRLF included */
    HTTP_CONNECTION_OPTIONS = 32, /* in all Connection fields together */
};

enum http_field_id {
    HTTP_FIELD_OTHER,
#define FIELD(id, name, sort) id,
#include "proxy/http_field.def"
#undef FIELD
    HTTP_FIELD_IDS,
};

struct http_field {
    struct slice name;   /* as received */
    struct slice value;  /* without white space around it */
    uint8_t id;          /* enum http_field_id */
    bool is_nominated;   /* named by a Connection field: concerns this connection only */
    bool has_underscore; /* WSGI would take it for the name with '-' */
};

struct http_fields {
    size_t count;
    uint64_t present; /* bit n: a field with id n is among them */
    struct http_field list[HTTP_FIELDS_MAX];
};

/* What a message says about its connection. */
struct http_connection_options {
    bool close;
    bool keep_alive;
    bool upgrade;
};

/* Why a head was refused. `reason` is a constant sentence, never text from the peer. */
struct http_refusal {
    unsigned status; /* 400, 414, 417, 426, 431, 501, 505; of responses always 502 */
    const char *reason;
};

/* Parses field lines and the empty line behind them. *at is moved behind that on
 * PARSE_DONE. The bytes end at `data_end`; more than `max_bytes` of them may not be used
 * (431). The verdict of a prefix is the verdict of all that begins with it. */
enum parse_result http_fields_parse(const char **at, const char *data_end,
                                    size_t max_bytes, struct http_fields *fields,
                                    struct http_refusal *refusal) MUST_CHECK;

/* Reads all Connection fields: fills *options and marks nominated fields. False with a
 * refusal for what is no list of tokens, or nominates a field that frames the message. */
bool http_connection_apply(struct http_fields *fields,
                           struct http_connection_options *options,
                           struct http_refusal *refusal) MUST_CHECK;

/* What the fields say about the body's length, RFC 9112 6: BODY_LENGTH, BODY_CHUNKED,
 * or BODY_NONE when they say nothing. PARSE_BAD for what two readers could read
 * differently. */
enum parse_result http_framing_read(const struct http_fields *fields, uint8_t minor,
                                    enum body_kind *kind, uint64_t *length,
                                    struct http_refusal *refusal) MUST_CHECK;

/* True when the lists in all fields with `id` have the member `name` in any case,
 * parameters aside; *members counts the members that are not empty. */
bool http_list_has(const struct http_fields *fields, enum http_field_id id,
                   struct slice name, size_t *members);

/* How many fields have `id`; *value is that of the first. */
size_t http_field_count(const struct http_fields *fields, enum http_field_id id,
                        struct slice *value);

/* What http_field.def says of a known field. */
enum http_field_sort {
    HTTP_FIELD_SORT_PLAIN,
    HTTP_FIELD_SORT_PROTECTED,
    HTTP_FIELD_SORT_OURS,
    HTTP_FIELD_SORT_FRAMING,
    HTTP_FIELD_SORT_HOP,
    HTTP_FIELD_SORT_DROPPED,
};
enum http_field_sort http_field_sort(enum http_field_id id);

/* The id for a name in any case; HTTP_FIELD_OTHER for an unknown one. */
enum http_field_id http_field_id(struct slice name);

/* Does a proxy in front say something with this field that applications believe (who the client is, what was asked
 * of which host, over what, under which prefix)? Those that we say ourselves aside. From anybody else than a
 * trusted proxy it is a lie: X-Forwarded-*, X-Original-*, X-Rewrite-*, X-Client-Cert and the like. */
bool http_field_is_of_proxies(enum http_field_id id, struct slice name);

/* The first field with `id` (not HTTP_FIELD_OTHER), or NULL. */
const struct http_field *http_field_find(const struct http_fields *fields,
                                         enum http_field_id id);

/* The first field with `name` in any case, or NULL; for names that come from the
 * configuration. */
const struct http_field *http_field_find_name(const struct http_fields *fields,
                                              struct slice name);

/* The value of cookie `name` (any Cookie field, first match), or a slice whose data is
 * NULL. */
struct slice http_cookie_find(const struct http_fields *fields, struct slice name);

static inline bool http_field_is_present(const struct http_fields *fields,
                                         enum http_field_id id)
{
    return (fields->present >> id & 1) != 0;
}

/* True when `text` is one or more token characters (RFC 9110 5.6.2). */
bool http_is_token(struct slice text);

/* True when `value` could be sent as a field value: no control characters but HTAB. */
bool http_is_field_value(struct slice value);
