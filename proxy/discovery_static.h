/*
 * Discovery from the configuration: the endpoints of discovery.static. Numeric addresses are listed at once; names
 * are looked up in the background, as the system does (hosts file, search domains), again and again:
 *
 *     answer           in its time to live, 1 s to a minute. The address that an endpoint has stays as long as it is
 *                      among the answer's; else it gets the first one, IPv4 before IPv6
 *     no answer, or    after 1, 2, 4 … 30 s; the last address stays. An endpoint without any is not listed
 *     no such name
 *
 * Nothing is listed before there is one address; what was listed before (by another configuration) stays until
 * then. Trouble names one of those that could not be looked up.
 */
#pragma once

#include "proxy/discovery_source.h"

extern const struct source_kind discovery_static;

/* Has it names, which replicas may learn of at different moments? */
bool discovery_static_has_names(const struct upstream_config *config);

/* For tests: fills the config's endpoints.count specs, all of them numeric; text is the configuration's. False:
 * `error` has one line. */
bool discovery_static_list(const struct upstream_config *config,
                           struct endpoint_spec *specs, char *error,
                           size_t error_size) MUST_CHECK;
