/*
 * discovery.file: a JSON list of endpoints, read again whenever the file has changed. A file that cannot be
 * read, or has an error, leaves the last list in place.
 */
#pragma once

#include "proxy/discovery_source.h"

extern const struct source_kind discovery_file;
