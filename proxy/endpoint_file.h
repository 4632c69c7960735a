/*
 * The text of an endpoints file: a JSON list of what discovery.static takes.
 *
 *     ["10.0.0.1:5000",
 *      {"address": "10.0.0.2:5000", "id": "web-1", "weight": 2, "state": "draining"}]
 *
 * Addresses are numeric or unix:/path: a name would make the loop wait for a name server.
 */
#pragma once

#include "proxy/endpoint_set.h"

#define ENDPOINT_FILE_BYTES_MAX (1024 * 1024)
#define ENDPOINT_FILE_MAX       4096 /* endpoints */

struct json_t;

struct endpoint_file {
    struct endpoint_spec *specs; /* text points into `document` */
    size_t len;
    struct json_t *document;
};

/* Reads the text. False: `error` has "line:column: why", and *file nothing. */
bool endpoint_file_parse(struct slice text, struct endpoint_file *file, char *error,
                         size_t error_size) MUST_CHECK;
void endpoint_file_cleanup(struct endpoint_file *file);
