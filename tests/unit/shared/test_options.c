/*
 * Proves that YAML and flags become a struct exactly as the rows say, and that whatever is wrong is told with
 * its place: each case of bad_cases is one file and the whole text of its errors.
 */
#include "tests/unit/unit.h"

#include "shared/options.h"
#include "shared/timing.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

struct endpoint_config {
    char *address;
    char *id;
    int64_t weight;
};

struct listener_config {
    char *address;
    bool has_tls;
    char *tls_cert;
    char *tls_key;
    unsigned mode;
    struct option_list users;
};

struct user_config {
    char *name;
};

struct everything {
    int64_t threads;
    double load;
    char *path;
    uint64_t bytes;
    uint64_t idle;
    uint64_t wait;
    int level;
    bool is_on;
    struct address admin;
    struct text_list paths;
    struct text_map headers;
    struct cidr_list trusted;
    struct option_list listeners;
    struct option_list endpoints;
    char *file;
};

static const char *const level_words[] = {"debug", "info", "warn", NULL};

static const char *check_path(const void *value)
{
    const char *text = *(char *const *)value;
    return text[0] == '/' ? NULL : "must begin with /";
}

static void check_everything(void *object, const struct option_place *place)
{
    const struct everything *all = object;
    if (option_is_given(place, "discovery.static") &&
        option_is_given(place, "discovery.file"))
        option_error(place, "discovery", "takes exactly one of static, file");
    if (all->threads == 13)
        option_error(place, "threads", "may not be %d", 13);
}

#define USER(member) .offset = offsetof(struct user_config, member)
static const struct option_row user_rows[] = {
    {"name", OPTION_TEXT, USER(name), .required = true, .help = "Who."},
};
static const struct option_table user_table = OPTION_TABLE(user_rows, struct user_config);

#define LISTENER(member) .offset = offsetof(struct listener_config, member)
static const struct option_row listener_rows[] = {
    {"address", OPTION_TEXT, LISTENER(address), .required = true, .reload = OPTION_NEW,
     .help = "Where to listen."},
    {"tls", OPTION_OBJECT, LISTENER(has_tls), .help = "Present: TLS."},
    {"tls.cert", OPTION_TEXT, LISTENER(tls_cert), .required = true, .help = "File."},
    {"tls.key", OPTION_TEXT, LISTENER(tls_key), .standard = "cert.key", .help = "File."},
    {"mode", OPTION_MODE, LISTENER(mode), .standard = "0660", .help = "Of the socket."},
    {"users", OPTION_LIST, LISTENER(users), .elements = &user_table, .help = "Who may."},
};
static const struct option_table listener_table =
    OPTION_TABLE(listener_rows, struct listener_config);

#define ENDPOINT(member) .offset = offsetof(struct endpoint_config, member)
static const struct option_row endpoint_rows[] = {
    {"address", OPTION_TEXT, ENDPOINT(address), .required = true, .help = "host:port."},
    {"id", OPTION_TEXT, ENDPOINT(id), .help = "Identity."},
    {"weight", OPTION_INTEGER, ENDPOINT(weight), .minimum = 1, .maximum = 64,
     .standard = "1", .help = "Share."},
};
static const struct option_table endpoint_table =
    OPTION_TABLE(endpoint_rows, struct endpoint_config, .plain = "address");

#define AT(member) .offset = offsetof(struct everything, member)
static const struct option_row rows[] = {
    {"threads", OPTION_INTEGER, AT(threads), .minimum = 1, .maximum = 256,
     .automatic = true, .standard = "auto", .reload = OPTION_RESTART,
     .help = "Worker threads."},
    {"load", OPTION_DECIMAL, AT(load), .minimum = 1000, .maximum = 10000,
     .standard = "1.25", .help = "Bound."},
    {"path", OPTION_TEXT, AT(path), .standard = "/", .check = check_path,
     .help = "Prefix."},
    {"limits.bytes", OPTION_SIZE, AT(bytes), .minimum = 1024, .maximum = 1 << 30,
     .standard = "32KiB", .reload = OPTION_NEW, .help = "Largest head."},
    {"timeouts.idle", OPTION_DURATION, AT(idle), .minimum = MILLISECONDS(1),
     .maximum = SECONDS(3600), .or_zero = true, .automatic = true, .standard = "auto",
     .help = "Silence."},
    {"timeouts.wait", OPTION_DURATION, AT(wait), .maximum = SECONDS(60), .standard = "2s",
     .help = "Patience."},
    {"log.level", OPTION_ENUM, AT(level), .words = level_words, .standard = "info",
     .help = "Least level."},
    {"is_on", OPTION_BOOL, AT(is_on), .help = "Switch."},
    {"admin", OPTION_ADDRESS, AT(admin), .standard = "127.0.0.1:9090",
     .help = "Operators."},
    {"paths", OPTION_TEXT_LIST, AT(paths), .standard = "/a, /b", .maximum = 3,
     .check = check_path, .help = "Paths."},
    {"headers.set", OPTION_TEXT_MAP, AT(headers), .help = "Fields."},
    {"trusted", OPTION_CIDR_LIST, AT(trusted), .help = "Believed."},
    {"listeners", OPTION_LIST, AT(listeners), .elements = &listener_table, .minimum = 1,
     .maximum = 4, .help = "Sockets."},
    {"discovery.static", OPTION_LIST, AT(endpoints), .elements = &endpoint_table,
     .help = "Endpoints."},
    {"discovery.file", OPTION_TEXT, AT(file), .help = "Endpoints in a file."},
};
static const struct option_table table =
    OPTION_TABLE(rows, struct everything, .check = check_everything);

/* All errors of a text, a line each; the caller frees. NULL when there were none. */
static char *errors_of(const char *yaml, struct everything *all)
{
    struct options *options = options_new(&table);
    options_read_text(options, "f.yaml", slice_from_text(yaml));
    char *text = NULL;
    if (!options_apply(options, all)) {
        size_t len = 0;
        FILE *out = open_memstream(&text, &len);
        options_print_errors(options, out);
        fclose(out);
        assert_true(len > 0);
    } else {
        assert_int_equal(0, options_error_count(options));
    }
    options_free(options);
    return text;
}

static void test_defaults_come_from_the_rows(void **state)
{
    (void)state;
    struct everything all;
    char *errors = errors_of("{}", &all);
    assert_null(errors);
    assert_true(all.threads == OPTION_AUTO_INTEGER);
    assert_true(all.load > 1.24 && all.load < 1.26);
    assert_string_equal("/", all.path);
    assert_int_equal(32768, all.bytes);
    assert_true(all.idle == OPTION_AUTO);
    assert_int_equal(SECONDS(2), all.wait);
    assert_int_equal(1, all.level);
    assert_false(all.is_on);
    assert_int_equal(9090, address_port(&all.admin));
    assert_int_equal(2, all.paths.count);
    assert_string_equal("/b", all.paths.items[1]);
    assert_int_equal(0, all.listeners.count);
    assert_string_equal("", all.file);
    options_cleanup(&table, &all);
}

static void test_every_type_is_read(void **state)
{
    (void)state;
    setenv("TEST_PORT", "5001", 1);
    struct everything all;
    char *errors =
        errors_of("threads: 4\n"
                  "load: 2.5\n"
                  "path: \"/x$${y}$z\"\n"
                  "limits: {bytes: 1MiB}\n"
                  "timeouts: {idle: 0, wait: 1500ms}\n"
                  "log: {level: debug}\n"
                  "is_on: true\n"
                  "admin: '[::1]:9091'\n"
                  "paths: []\n"
                  "headers: {set: {X-A: '1', X-B: two}}\n"
                  "trusted: [10.0.0.0/8, '2001:db8::/32', 192.0.2.7]\n"
                  "listeners:\n"
                  "  - address: \"0.0.0.0:8080\"\n"
                  "  - {address: 'unix:/a', mode: '0600', users: [{name: eve}],\n"
                  "     tls: {cert: c}}\n"
                  "discovery:\n"
                  "  static: ['127.0.0.1:${TEST_PORT}', {address: b, weight: 2}]\n",
                  &all);
    assert_null(errors);
    assert_int_equal(4, all.threads);
    assert_string_equal("/x${y}$z", all.path);
    assert_int_equal(1 << 20, all.bytes);
    assert_int_equal(0, all.idle);
    assert_int_equal(1500000, all.wait);
    assert_int_equal(0, all.level);
    assert_true(all.is_on);
    assert_int_equal(9091, address_port(&all.admin));
    assert_int_equal(0, all.paths.count);
    assert_string_equal("two", all.headers.items[1].value);
    assert_int_equal(3, all.trusted.count);
    assert_int_equal(2, all.listeners.count);
    struct listener_config *second = OPTION_ITEM(all.listeners, listener_config, 1);
    assert_int_equal(0600, second->mode);
    assert_true(second->has_tls);
    assert_string_equal("cert.key", second->tls_key);
    assert_string_equal("eve", OPTION_ITEM(second->users, user_config, 0)->name);
    assert_false(OPTION_ITEM(all.listeners, listener_config, 0)->has_tls);
    struct endpoint_config *first = OPTION_ITEM(all.endpoints, endpoint_config, 0);
    assert_string_equal("127.0.0.1:5001", first->address);
    assert_int_equal(1, first->weight);
    assert_int_equal(2, OPTION_ITEM(all.endpoints, endpoint_config, 1)->weight);
    options_cleanup(&table, &all);
}

struct bad_case {
    const char *yaml;
    const char *errors;
};

static const struct bad_case bad_cases[] = {
    {"", "f.yaml:1:1: is empty\n"},
    {"# only a comment\n", "f.yaml:1:1: is empty\n"},
    {"just text", "f.yaml:1:1: expected a mapping of options, found a value\n"},
    {"- a\n- b\n", "f.yaml:1:1: expected a mapping of options, found a list\n"},
    {"{}\n---\n{}\n", "f.yaml:2:1: a second document begins (only one is read)\n"},
    {"threads: [1\n", "f.yaml:2:1: YAML: did not find expected ',' or ']', while parsing "
                      "a flow sequence\n"},
    {"threads: 1\n threads: 2\n",
     "f.yaml:2:9: YAML: mapping values are not allowed in this context\n"},
    {"threads:\n\t- 1\n",
     "f.yaml:2:1: YAML: found character that cannot start any token, "
     "while scanning for the next token\n"},
    {"path: *nowhere\n", "f.yaml:1:7: YAML: found undefined alias\n"},
    {"is_on: true\npath: \"\xff\"\n", "f.yaml:2:8: the file is not UTF-8: byte 0xff\n"},
    {"\xff\xfe{\0}", "f.yaml:1:1: the file is UTF-16: write it as UTF-8\n"},
    {"path: \"\x01\"\n", "f.yaml:1:8: a control byte, 0x01\n"},
    {"%YAML 1.1\n---\n{}\n...\n---\n",
     "f.yaml:5:1: a second document begins (only one is read)\n"},
    {"path: \"/\\0\"\n", "f.yaml:1:7: path: holds a NUL byte\n"},
    {"tread: 1\n", "f.yaml:1:1: unknown key \"tread\" (did you mean \"threads\"?)\n"},
    {"limits:\n  byte: 1\n",
     "f.yaml:2:3: unknown key \"byte\" (did you mean \"bytes\"?)\n"},
    {"zzzzzzzzzzz: 1\n",
     "f.yaml:1:1: unknown key \"zzzzzzzzzzz\" (the nearest known key is \"threads\")\n"},
    {"limits.bytes: 1KiB\n",
     "f.yaml:1:1: unknown key \"limits.bytes\" (the nearest known key is \"limits\")\n"},
    {"? [a]\n: 1\n", "f.yaml:1:3: this cannot be the name of an option\n"},
    {"a: &x {is_on: true}\n<<: *x\n",
     "f.yaml:1:1: unknown key \"a\" (the nearest known key is \"load\")\n"
     "f.yaml:2:1: merge keys (<<) are not supported\n"},
    {"is_on: true\nis_on: false\n", "f.yaml:2:1: is_on stands here twice\n"},
    {"limits: {bytes: 1KiB, bytes: 2KiB}\n",
     "f.yaml:1:23: limits.bytes stands here twice\n"},
    {"headers: {set: {A: 1, A: 2}}\n",
     "f.yaml:1:23: headers.set.\"A\": stands here twice\n"},
    {"limits: 5\n", "f.yaml:1:9: limits: expected a mapping, found a value\n"},
    {"limits:\n", "f.yaml:1:8: limits: expected a mapping, found nothing\n"},
    {"is_on: {a: b}\n", "f.yaml:1:8: is_on: expected a value, found a mapping\n"},
    {"paths: /x\n", "f.yaml:1:8: paths: expected a list, found a value\n"},
    {"paths: [[]]\n", "f.yaml:1:9: paths[0]: expected a value, found a list\n"},
    {"headers: {set: []}\n",
     "f.yaml:1:16: headers.set: expected a mapping, found a list\n"},
    {"listeners: {}\n", "f.yaml:1:12: listeners: expected a list, found a mapping\n"},
    {"listeners: [a]\n",
     "f.yaml:1:13: listeners[0]: expected a mapping, found a value\n"},
    {"listeners: []\n", "f.yaml:1:12: listeners: has 0 items (allowed: 1..4 items)\n"},
    {"discovery: {static: [[]]}\n",
     "f.yaml:1:22: discovery.static[0]: expected a value or a mapping, found a list\n"},
    {"is_on: yes\n", "f.yaml:1:8: is_on: \"yes\" is not true or false\n"},
    {"threads: many\n", "f.yaml:1:10: threads: \"many\" is not an integer or auto\n"},
    {"threads: 4.5\n", "f.yaml:1:10: threads: \"4.5\" is not an integer or auto\n"},
    {"threads: 0\n", "f.yaml:1:10: threads: \"0\" is out of range (auto|1..256)\n"},
    {"threads: -3\n", "f.yaml:1:10: threads: \"-3\" is out of range (auto|1..256)\n"},
    {"threads: 99999999999999999999\n",
     "f.yaml:1:10: threads: \"99999999999999999999\" is not an integer or auto\n"},
    {"load: x\n", "f.yaml:1:7: load: \"x\" is not a number\n"},
    {"load: 1.2.3\n", "f.yaml:1:7: load: \"1.2.3\" is not a number\n"},
    {"load: 0.5\n", "f.yaml:1:7: load: \"0.5\" is out of range (1..10)\n"},
    {"load: .nan\n", "f.yaml:1:7: load: \".nan\" is not a number\n"},
    {"limits: {bytes: 10 KiB}\n", "f.yaml:1:17: limits.bytes: \"10 KiB\" is not a size "
                                  "(bytes, or a whole number with KiB, MiB or GiB)\n"},
    {"limits: {bytes: 10KB}\n", "f.yaml:1:17: limits.bytes: \"10KB\" is not a size "
                                "(bytes, or a whole number with KiB, MiB or GiB)\n"},
    {"limits: {bytes: 0}\n",
     "f.yaml:1:17: limits.bytes: \"0\" is out of range (1KiB..1GiB)\n"},
    {"limits: {bytes: 9999999999GiB}\n",
     "f.yaml:1:17: limits.bytes: \"9999999999GiB\" is not a size "
     "(bytes, or a whole number with KiB, MiB or GiB)\n"},
    {"timeouts: {wait: 10}\n", "f.yaml:1:18: timeouts.wait: \"10\" is not a duration "
                               "(a whole number with ms, s, m or h)\n"},
    {"timeouts: {wait: 2h}\n",
     "f.yaml:1:18: timeouts.wait: \"2h\" is out of range (0..1m)\n"},
    {"timeouts: {wait: auto}\n", "f.yaml:1:18: timeouts.wait: \"auto\" is not a duration "
                                 "(a whole number with ms, s, m or h)\n"},
    {"timeouts: {idle: 2h}\n",
     "f.yaml:1:18: timeouts.idle: \"2h\" is out of range (auto|0|1ms..1h)\n"},
    {"log: {level: loud}\n",
     "f.yaml:1:14: log.level: \"loud\" is not one of debug|info|warn\n"},
    {"path: x\n", "f.yaml:1:7: path: \"x\" must begin with /\n"},
    {"paths: [/a, b]\n", "f.yaml:1:13: paths[1]: \"b\" must begin with /\n"},
    {"paths: [/a, /b, /c, /d]\n",
     "f.yaml:1:8: paths: has 4 items (allowed: 0..3 items)\n"},
    {"admin: localhost:80\n", "f.yaml:1:8: admin: \"localhost:80\" is not an address: "
                              "the host is not a numeric address\n"},
    {"admin: 127.0.0.1\n",
     "f.yaml:1:8: admin: \"127.0.0.1\" is not an address: the port is missing "
     "(host:port, [v6]:port or unix:/path)\n"},
    {"trusted: [10.0.0.1/8]\n",
     "f.yaml:1:11: trusted[0]: \"10.0.0.1/8\" has address bits behind the prefix\n"},
    {"listeners: [{}]\n", "f.yaml:1:13: listeners[0].address is required\n"},
    {"listeners: [{address: a, tls: {}}]\n",
     "f.yaml:1:31: listeners[0].tls.cert is required\n"},
    {"listeners: [{address: a, mode: '0999'}]\n",
     "f.yaml:1:32: listeners[0].mode: \"0999\" is not a file mode (octal, 0000..0777)\n"},
    {"listeners: [{address: a, users: [{nam: x}]}]\n",
     "f.yaml:1:34: listeners[0].users[0].name is required\n"
     "f.yaml:1:35: unknown key \"nam\" (did you mean \"name\"?)\n"},
    {"discovery:\n  static: [a]\n  file: b\n",
     "f.yaml:2:3: discovery takes exactly one of static, file\n"},
    {"threads: 13\n", "f.yaml:1:10: threads may not be 13\n"},
    {"path: /${NOT_SET_HERE}\n",
     "f.yaml:1:7: path: the environment variable NOT_SET_HERE is not set\n"},
    {"path: /${1}\n", "f.yaml:1:7: path: ${…} needs the name of an environment variable "
                      "(write $${ for a plain ${)\n"},
    {"path: /${HOME\n",
     "f.yaml:1:7: path: ${…} needs the name of an environment variable "
     "(write $${ for a plain ${)\n"},
    {"threads: 0\nlimits: {bytes: 1}\npath: x\n",
     "f.yaml:1:10: threads: \"0\" is out of range (auto|1..256)\n"
     "f.yaml:2:17: limits.bytes: \"1\" is out of range (1KiB..1GiB)\n"
     "f.yaml:3:7: path: \"x\" must begin with /\n"},
    {"limits: &l {bytes: *l}\n",
     "f.yaml:1:9: limits.bytes: expected a value, found a mapping\n"},
};

static void test_each_mistake_is_told_with_its_place(void **state)
{
    (void)state;
    unsetenv("NOT_SET_HERE");
    for (size_t i = 0; i < ARRAY_LEN(bad_cases); i++) {
        struct everything all;
        char *errors = errors_of(bad_cases[i].yaml, &all);
        if (errors == NULL)
            fail_msg("accepted: %s", bad_cases[i].yaml);
        if (strcmp(errors, bad_cases[i].errors) != 0)
            fail_msg("%s\nexpected %sfound    %s", bad_cases[i].yaml, bad_cases[i].errors,
                     errors);
        free(errors);
    }
}

static void test_aliases_share_values_but_cannot_multiply_without_end(void **state)
{
    (void)state;
    struct everything all;
    char *errors =
        errors_of("discovery: {static: [&e {address: a, weight: 3}, *e, *e]}", &all);
    assert_null(errors);
    assert_int_equal(3, all.endpoints.count);
    assert_int_equal(3, OPTION_ITEM(all.endpoints, endpoint_config, 2)->weight);
    options_cleanup(&table, &all);

    /* 4 listeners × 20,000 users each, all aliases: 160,000 values are fine, but a table one deeper is not */
    char *yaml = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&yaml, &len);
    fprintf(out, "listeners: [&l {address: a, users: [&u {name: n}");
    for (int i = 0; i < 30000; i++)
        fprintf(out, ",*u");
    fprintf(out, "]}, *l, *l, *l]\n");
    fclose(out);
    errors = errors_of(yaml, &all);
    assert_non_null(errors);
    assert_non_null(strstr(errors, "has too many items"));
    free(errors);
    free(yaml);
}

static void test_a_hundred_errors_are_shown_and_the_rest_is_counted(void **state)
{
    (void)state;
    char *yaml = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&yaml, &len);
    fprintf(out, "trusted: [x");
    for (int i = 1; i < 150; i++)
        fprintf(out, ",x");
    fprintf(out, "]\n");
    fclose(out);
    struct everything all;
    char *errors = errors_of(yaml, &all);
    size_t lines = 0;
    for (char *at = errors; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    assert_int_equal(101, lines);
    assert_non_null(strstr(errors, "f.yaml: 50 more errors\n"));
    free(errors);
    free(yaml);
}

static void test_flags_are_read_by_the_same_rows(void **state)
{
    (void)state;
    struct everything all;
    struct options *options = options_new(&table);
    options_set(options, "--listen", "listeners[0].address", SLICE("unix:/a"));
    options_set(options, "--upstream", "discovery.static[0]", SLICE("a:1"));
    options_set(options, "--upstream", "discovery.static[1]", SLICE("b:${2"));
    options_set(options, "--threads", "threads", SLICE("3"));
    assert_true(options_apply(options, &all));
    assert_int_equal(3, all.threads);
    assert_int_equal(2, all.endpoints.count);
    assert_string_equal("b:${2", OPTION_ITEM(all.endpoints, endpoint_config, 1)->address);
    options_cleanup(&table, &all);
    options_free(options);

    options = options_new(&table);
    assert_true(options_read_text(options, "f.yaml", SLICE("threads: 2\nload: 0\n")));
    options_set(options, "--threads", "threads", SLICE("0"));
    options_set(options, "--bytes", "limits.bytes", SLICE("1"));
    options_set(options, "--bad", "threads.deeper", SLICE("1"));
    assert_false(options_apply(options, &all));
    assert_int_equal(4, options_error_count(options));
    assert_string_equal("f.yaml:2:7: load: \"0\" is out of range (1..10)",
                        options_error_text(options, 0));
    assert_string_equal(
        "--bad: cannot set threads.deeper: the file has something else there",
        options_error_text(options, 1));
    assert_string_equal("--threads: threads: \"0\" is out of range (auto|1..256)",
                        options_error_text(options, 2));
    assert_string_equal("--bytes: limits.bytes: \"1\" is out of range (1KiB..1GiB)",
                        options_error_text(options, 3));
    options_free(options);
}

static void expect_file_error(const char *path, const char *expected)
{
    struct options *options = options_new(&table);
    struct everything all;
    assert_false(options_read_file(options, path));
    assert_false(options_apply(options, &all));
    assert_int_equal(1, options_error_count(options));
    assert_string_equal(expected, options_error_text(options, 0));
    options_free(options);
}

static void test_a_file_that_cannot_be_read_is_one_clear_line(void **state)
{
    (void)state;
    expect_file_error("/nonexistent/x.yaml",
                      "/nonexistent/x.yaml: No such file or directory");
    expect_file_error("/proc", "/proc: Is a directory");
    expect_file_error("/dev/zero", "/dev/zero: is not a regular file");
    expect_file_error("/dev/null", "/dev/null: is not a regular file");
    char path[] = "/tmp/sidrail-options-XXXXXX", expected[128];
    assert_non_null(mkdtemp(path));
    assert_int_equal(0, rmdir(path));
    assert_int_equal(0, mkfifo(path, 0600)); /* without a writer: open() would wait */
    snprintf(expected, sizeof(expected), "%s: is not a regular file", path);
    expect_file_error(path, expected);
    assert_int_equal(0, unlink(path));
}

/* `count` times `part`, each with its number for a %zu in it. */
static char *repeated(const char *before, const char *part, size_t count,
                      const char *behind)
{
    char *yaml = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&yaml, &len);
    fputs(before, out);
    for (size_t i = 0; i < count; i++)
        for (const char *c = part; *c != '\0'; c++)
            if (*c == '#')
                fprintf(out, "%zu", i);
            else
                fputc(*c, out);
    fputs(behind, out);
    fclose(out);
    return yaml;
}

/* Each of these took libyaml, or the walk, between seconds and minutes. */
static void test_what_is_too_much_is_refused_at_once(void **state)
{
    (void)state;
    static const struct {
        const char *before, *part;
        size_t count;
        const char *behind, *error;
    } excesses[] = {
        {"path: ", "[", 1000000, "", "f.yaml:1:38: more than 32 levels of nesting"},
        {"path: ", "{", 1000000, "", "f.yaml:1:38: more than 32 levels of nesting"},
        {"path:\n  ", "- ", 500000, "x\n", "f.yaml:2:65: more than 32 levels of nesting"},
        {"", "? ", 500000, "x\n", "f.yaml:1:65: more than 32 levels of nesting"},
        {"", "a#: 1\n", 100000, "", "f.yaml:1001:1: more than 1000 keys in one mapping"},
        {"listeners: [{a", ",b#: 1", 100000, "}]", " more than 1000 keys in one mapping"},
        {"trusted:\n", "- a\n", 200000, "", "f.yaml:99999:3: more than 100000 values"},
        {"trusted:\n", "- &a# a\n", 60000, "", "f.yaml:1002:3: more than 1000 anchors"},
        {"", "%TAG !a#! x\n", 60000, "---\n{}\n", "f.yaml:9:1: more than 8 directives"},
        {"{}\n", "---\n", 200000, "", "f.yaml:2:1: a second document begins"},
        {"trusted: [", "&a [*a],", 100000, "]", "more than 1000 anchors"},
        {"", " ", 1048577, "", "f.yaml:1:1: is larger than 1 MiB"},
        {"", "#", 1000000, "", "f.yaml:1:1: is empty"},
    };
    for (size_t i = 0; i < ARRAY_LEN(excesses); i++) {
        struct everything all;
        char *yaml = i + 1 == ARRAY_LEN(excesses)
                         ? must_printf("#%0999999d\n", 0)
                         : repeated(excesses[i].before, excesses[i].part,
                                    excesses[i].count, excesses[i].behind);
        clock_t begin = clock();
        char *errors = errors_of(yaml, &all);
        double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
        if (errors == NULL || strstr(errors, excesses[i].error) == NULL)
            fail_msg("row %zu: expected %s, found %.200s", i, excesses[i].error, errors);
        if (seconds > 10)
            fail_msg("row %zu took %.1f s", i, seconds);
        free(errors);
        free(yaml);
    }
}

/* Values that are all wrong, many times over through aliases. */
static void test_many_mistakes_are_found_in_a_moment(void **state)
{
    (void)state;
    struct everything all;
    char *keys = repeated("listeners: [&l {address: a", ",unknown#: x", 990, "}");
    char *yaml = repeated(keys, ", *l", 3, "]\n");
    clock_t begin = clock();
    char *errors = errors_of(yaml, &all);
    assert_non_null(errors);
    assert_non_null(strstr(errors, "more errors"));
    assert_true(clock() - begin < 10 * CLOCKS_PER_SEC);
    free(errors);
    free(yaml);
    free(keys);
}

static void test_a_byte_order_mark_is_skipped(void **state)
{
    (void)state;
    struct everything all;
    assert_null(errors_of("\xef\xbb\xbfthreads: 2\n", &all));
    assert_int_equal(2, all.threads);
    options_cleanup(&table, &all);
}

static void test_print_has_one_row_for_each_option(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    options_print(&table, out);
    fclose(out);
    assert_non_null(strstr(
        text, "threads\tinteger\tauto|1..256\tauto\t-\trestart\tWorker threads.\n"));
    assert_non_null(strstr(text,
                           "limits.bytes\tsize\t1KiB..1GiB\t32KiB\tbytes, KiB, MiB, GiB"
                           "\tnew\tLargest head.\n"));
    assert_non_null(strstr(text,
                           "\ntimeouts.idle\tduration\tauto|0|1ms..1h\tauto\tms, s, m, h"
                           "\tlive\tSilence.\n"));
    assert_non_null(
        strstr(text, "\nlisteners[].tls.cert\ttext\t-\trequired\t-\tlive\tFile.\n"));
    assert_non_null(strstr(text, "\nlisteners[].users[].name\t"));
    assert_non_null(strstr(text, "\npaths\tlist of text\t0..3 items\t[/a, /b]\t"));
    size_t lines = 0;
    for (char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    assert_int_equal(ARRAY_LEN(rows) + ARRAY_LEN(listener_rows) + ARRAY_LEN(user_rows) +
                         ARRAY_LEN(endpoint_rows),
                     lines);
    free(text);
}

static void on_change(void *argument, const char *path, enum option_reload reload)
{
    char **seen = argument;
    char *longer = must_printf("%s%s=%s ", *seen, path, option_reload_text(reload));
    free(*seen);
    *seen = longer;
}

static void test_compare_names_what_differs(void **state)
{
    (void)state;
    struct everything one, other;
    assert_null(errors_of("{listeners: [{address: a}], paths: [/x]}", &one));
    assert_null(errors_of("{listeners: [{address: b}], paths: [/x], threads: 2,"
                          " discovery: {static: [x]}}",
                          &other));
    char *seen = must_strdup("");
    assert_int_equal(3, options_compare(&table, &one, &other, on_change, &seen));
    assert_string_equal("threads=restart listeners[0].address=new discovery.static=live ",
                        seen);
    assert_int_equal(0, options_compare(&table, &one, &one, NULL, NULL));
    free(seen);
    options_cleanup(&table, &one);
    options_cleanup(&table, &other);
}

static void test_arbitrary_bytes_neither_crash_nor_leak(void **state)
{
    (void)state;
    /* every prefix of a good file, and each byte of it replaced */
    const char *good =
        "listeners:\n  - {address: 'a', tls: {cert: c}, users: [{name: e}]}\n"
        "discovery: {static: ['x', &e {address: b}, *e]}\npaths: [/a]\n"
        "headers: {set: {a: '${HOME}'}}\n";
    size_t len = strlen(good);
    const char replacements[] = "{}[]:,&*'\"\n\t-?!#%\xc3";
    for (size_t i = 0; i < len; i++) {
        for (size_t r = 0; r < sizeof(replacements); r++) {
            char *text = must_strdup(good);
            text[i] = r == sizeof(replacements) - 1 ? '\0' : replacements[r];
            struct everything all;
            char *errors = errors_of(text, &all);
            if (errors == NULL)
                options_cleanup(&table, &all);
            free(errors);
            free(text);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_come_from_the_rows),
        cmocka_unit_test(test_every_type_is_read),
        cmocka_unit_test(test_each_mistake_is_told_with_its_place),
        cmocka_unit_test(test_aliases_share_values_but_cannot_multiply_without_end),
        cmocka_unit_test(test_a_hundred_errors_are_shown_and_the_rest_is_counted),
        cmocka_unit_test(test_flags_are_read_by_the_same_rows),
        cmocka_unit_test(test_a_file_that_cannot_be_read_is_one_clear_line),
        cmocka_unit_test(test_what_is_too_much_is_refused_at_once),
        cmocka_unit_test(test_many_mistakes_are_found_in_a_moment),
        cmocka_unit_test(test_a_byte_order_mark_is_skipped),
        cmocka_unit_test(test_print_has_one_row_for_each_option),
        cmocka_unit_test(test_compare_names_what_differs),
        cmocka_unit_test(test_arbitrary_bytes_neither_crash_nor_leak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
