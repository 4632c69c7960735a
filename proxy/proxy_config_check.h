/*
 * Rules of the configuration that no single row can say. All report with option_error(); values may be the
 * defaults of options that were themselves wrong.
 */
#pragma once

#include "shared/options.h"

/* One value: NULL, or what is wrong with it. */
const char *proxy_check_name(const void *text);     /* of an upstream */
const char *proxy_check_endpoint(const void *text); /* host:port, [v6]:port, unix:/path */
const char *proxy_check_cookie_name(const void *text);   /* a token, or empty */
const char *proxy_check_cookie_path(const void *text);   /* no ';', begins with '/' */
const char *proxy_check_cookie_domain(const void *text); /* letters, digits, '.', '-' */
const char *proxy_check_hash_by(const void *text); /* auto, client_ip, header:NAME, … */
const char *proxy_check_health_path(const void *text); /* /path?query as it is sent */
const char *proxy_check_dns_name(const void *text);
const char *proxy_check_dns_server(const void *text);  /* IP, IP:port, or empty */
const char *proxy_check_label(const void *text);       /* RFC 1123, or empty */
const char *proxy_check_api_server(const void *text);  /* http[s]://IP:port, or empty */
const char *proxy_check_host(const void *text);        /* exact, *.example.com, * */
const char *proxy_check_path(const void *text);        /* of a route */
const char *proxy_check_engine_path(const void *text); /* begins and ends with '/' */
const char *proxy_check_origin(const void *text);      /* scheme://host[:port] */
const char *proxy_check_field_name(const void *text); /* a token, and not the framing's */
const char *proxy_check_socket(const void *text);     /* auto, empty, an absolute path */

/* One object: a listener, an upstream, a route; and the whole. */
void proxy_check_upstream(void *object, const struct option_place *place);
void proxy_check_route(void *object, const struct option_place *place);
void proxy_check_config(void *object, const struct option_place *place);
