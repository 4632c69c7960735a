/*
 * The files that a configuration names: opened before anything depends on them.
 *
 *      --check ─▶ config_files_check ─▶ certificates, keys, CA bundles, ticket keys, affinity keys, endpoint files
 */
#pragma once

#include "proxy/proxy_config.h"

#include <stdio.h>

/* Reads each as the daemon would. False: one line each in `errors`, with the option and the file. The files of a pod's
 * service account are looked at only when they are not the usual ones: a check may run outside of the pod. */
bool config_files_check(const struct proxy_config *config, FILE *errors) MUST_CHECK;

/* The private keys of listeners and upstreams: how many, and their paths, borrowed, in an array that the caller frees. */
size_t config_files_keys(const struct proxy_config *config, const char ***keys);
