/*
 * The status page at "/" of the admin port: one HTML document that polls /status.json and loads nothing else.
 */
#pragma once

extern const char broker_page[];
