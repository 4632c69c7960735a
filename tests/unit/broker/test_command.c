/* The command table is well formed, and each rule in front of a handler answers with Redis' text: requests go
 * through a real client over a socket pair, with a hub behind it. */
#include "tests/unit/unit.h"

#include "broker/broker_config.h"
#include "broker/command.h"
#include "broker/deliver.h"
#include "broker/host_ids.h"
#include "broker/pods.h"
#include "broker/publish.h"
#include "broker/turn.h"
#include "shared/timing.h"

#include <ctype.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>

struct world {
    struct event_base *base;
    struct turn *turn;
    struct broker_config config;
    struct broker_listener_config listener;
    struct broker_user_config user;
    char *passwords[2];
    struct command_context context;
    struct pod_rooms *pod_rooms;
    struct deliverer *deliverer;
};

static enum client_verdict on_request(void *context, struct client *client, size_t argc,
                                      const struct slice *argv, struct evbuffer *reply)
{
    return command_run(context, client, argc, argv, reply);
}

static void on_close(void *context, struct client *client,
                     enum close_reason reason UNUSED)
{
    struct command_context *commands = context;
    if (client_facts(client)->pod != NULL)
        pod_free(commands->pods, client_facts(client)->pod);
    interest_remove_all(commands->interest, client_subscriber(client));
    host_ids_forget(commands->host_ids, client);
}

static enum first_bytes look_first(void *context UNUSED, struct slice input)
{
    return first_bytes_look(command_table, input);
}

static bool wants_no_heartbeat(void *context UNUSED, struct client *client UNUSED)
{
    return false;
}

static uint32_t on_first_room(void *context UNUSED, struct slice channel UNUSED,
                              struct slice namespace UNUSED, struct slice room UNUSED)
{
    return UINT32_MAX;
}

static void on_last_room(void *context UNUSED, uint32_t partition UNUSED)
{
}

static void begin(struct world *world, bool has_user)
{
    static const struct pod_rooms_callbacks no_rooms = {on_first_room, on_last_room,
                                                        NULL};
    static char name[] = "pods";
    static char password[] = "secret";
    *world = (struct world){.base = event_base_new()};
    world->config.clients_max = 10;
    world->config.json_depth = 256;
    world->config.channels_max = 1000;
    world->config.holders = 1;
    world->listener.whole = &world->config;
    if (has_user) {
        world->passwords[0] = password;
        world->user.name = name;
        world->user.classes = COMMAND_CLASSES_ALL;
        world->user.passwords = (struct text_list){world->passwords, 1};
        world->listener.users = (struct option_list){&world->user, 1};
    }
    world->turn = turn_new(world->base);
    const struct interest_callbacks none = {0};
    world->context.interest = interest_table_new(&none);
    world->pod_rooms = pod_rooms_new(&no_rooms);
    world->deliverer = deliverer_new(world->context.interest, world->pod_rooms);
    const struct client_limits limits = {.clients = 10,
                                         .input = 1 << 24,
                                         .payload = 1 << 20,
                                         .request = 1 << 21,
                                         .slow_bytes = 1 << 20,
                                         .slow_age = SECONDS(30)};
    const struct client_callbacks callbacks = {.on_request = on_request,
                                               .look_first = look_first,
                                               .on_close = on_close,
                                               .wants_heartbeat = wants_no_heartbeat,
                                               .context = &world->context};
    world->context.config = &world->config;
    world->context.clients =
        client_set_new(world->base, world->turn, &limits, &callbacks);
    world->context.publisher =
        publisher_new(world->base, world->turn, &world->config, NULL,
                      world->context.interest, world->deliverer);
    world->context.pods = pods_new(world->context.interest, world->pod_rooms,
                                   world->context.clients, world->context.publisher);
    world->context.host_ids =
        host_ids_new(world->context.clients, wants_no_heartbeat, NULL);
}

static void end(struct world *world)
{
    client_set_free(world->context.clients);
    host_ids_free(world->context.host_ids);
    publisher_free(world->context.publisher);
    deliverer_free(world->deliverer);
    pods_free(world->context.pods);
    pod_rooms_free(world->pod_rooms);
    interest_table_free(world->context.interest);
    turn_free(world->turn);
    event_base_free(world->base);
}

static int enter(struct world *world)
{
    int fds[2];
    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
    struct address peer = {0};
    client_open(world->context.clients, fds[0], &peer, &world->listener);
    return fds[1];
}

/* Sends and returns what comes back within a few turns. */
static const char *say(struct world *world, int fd, const char *text)
{
    static char answer[4096];
    assert_int_equal(strlen(text), write(fd, text, strlen(text)));
    for (int i = 0; i < 3; i++)
        event_base_loop(world->base, EVLOOP_NONBLOCK);
    ssize_t len = read(fd, answer, sizeof(answer) - 1);
    answer[len > 0 ? len : 0] = '\0';
    return answer;
}

static void check_rows(const struct command *table, const char *parent)
{
    const char *last = "";
    for (const struct command *row = table; row->name != NULL; row++) {
        assert_true(strcmp(last, row->name) < 0); /* sorted, so unique */
        last = row->name;
        for (const char *c = row->name; *c != '\0'; c++)
            assert_false(isupper((unsigned char)*c));
        assert_int_not_equal(0, row->arity);
        assert_true(row->handle != NULL || row->subcommands != NULL);
        assert_true(parent == NULL || row->subcommands == NULL);
        if (row->subcommands != NULL)
            check_rows(row->subcommands, row->name);
    }
}

static void test_rows_are_sorted_unique_and_complete(void **state UNUSED)
{
    check_rows(command_table, NULL);
    assert_ptr_equal(command_find(command_table, SLICE("ping")),
                     command_find(command_table, SLICE("PiNg")));
    assert_null(command_find(command_table, SLICE("pin")));
    assert_null(command_find(command_table, SLICE("")));
}

static void
test_what_is_wrong_with_a_request_is_told_as_redis_tells_it(void **state UNUSED)
{
    static const struct {
        const char *request, *answer;
    } rows[] = {
        {"PING\r\n", "+PONG\r\n"},
        {"nope a b\r\n",
         "-ERR unknown command 'nope', with args beginning with: 'a' 'b' \r\n"},
        {"nope\r\n", "-ERR unknown command 'nope', with args beginning with: \r\n"},
        {"publish a\r\n", "-ERR wrong number of arguments for 'publish' command\r\n"},
        {"ECHO a b\r\n", "-ERR wrong number of arguments for 'echo' command\r\n"},
        {"client\r\n", "-ERR wrong number of arguments for 'client' command\r\n"},
        {"client nope\r\n", "-ERR unknown subcommand 'nope'. Try CLIENT HELP.\r\n"},
        {"config set a b\r\n", "-ERR unknown subcommand 'set'. Try CONFIG HELP.\r\n"},
        {"client id x\r\n", "-ERR wrong number of arguments for 'client|id' command\r\n"},
        {"hello 9\r\n", "-NOPROTO unsupported protocol version\r\n"},
        {"hello x\r\n", "-ERR Protocol version is not an integer or out of range\r\n"},
        {"hello 3 nope\r\n", "-ERR Syntax error in HELLO option 'nope'\r\n"},
        {"client setname \"a b\"\r\n",
         "-ERR Client names cannot contain spaces, newlines or "
         "special characters.\r\n"},
        {"publish c x\r\n", ":0\r\n"},
        {"unsubscribe\r\n", "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"},
        {"subscribe c\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"},
        {"subscribe c\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"},
        {"publish c x\r\n", "-ERR Can't execute 'publish': only (P|S)SUBSCRIBE / "
                            "(P|S)UNSUBSCRIBE / PING / QUIT "
                            "/ RESET are allowed in this context\r\n"},
        {"ping\r\n", "*2\r\n$4\r\npong\r\n$0\r\n\r\n"},
        {"unsubscribe c d\r\n", "*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n"
                                "*3\r\n$11\r\nunsubscribe\r\n$1\r\nd\r\n:0\r\n"},
        {"ping\r\n", "+PONG\r\n"},
    };
    struct world world;
    begin(&world, false);
    int fd = enter(&world);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_string_equal(rows[i].answer, say(&world, fd, rows[i].request));
    interest_table_check(world.context.interest);
    close(fd);
    end(&world);
}

/* Every row of the table, with as many words as it needs, is refused before the password. */
static void check_needs_password(struct world *world, int fd, const struct command *table)
{
    for (const struct command *row = table; row->name != NULL; row++) {
        if (row->subcommands != NULL)
            check_needs_password(world, fd, row->subcommands);
        if ((row->flags & COMMAND_NO_AUTH) != 0 || row->handle == NULL)
            continue;
        char request[128];
        int len = snprintf(request, sizeof(request), "%s", row->name);
        char *bar = strchr(request, '|');
        if (bar != NULL)
            *bar = ' ';
        for (int words = bar != NULL ? 2 : 1; words < abs(row->arity); words++)
            len += snprintf(request + len, sizeof(request) - (size_t)len, " a");
        snprintf(request + len, sizeof(request) - (size_t)len, "\r\n");
        assert_string_equal(strcmp(row->name, "exec") == 0
                                ? "-EXECABORT Transaction discarded because of: NOAUTH "
                                  "Authentication required.\r\n"
                                : "-NOAUTH Authentication required.\r\n",
                            say(world, fd, request));
    }
}

static void test_before_the_password_only_the_handshake_is_run(void **state UNUSED)
{
    struct world world;
    begin(&world, true);
    int fd = enter(&world);
    check_needs_password(&world, fd, command_table);
    assert_string_equal(
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
        say(&world, fd, "AUTH pods secre\r\n"));
    assert_string_equal("+OK\r\n",
                        say(&world, fd, "AUTH secret\r\n")); /* the only user */
    assert_string_equal("+RESET\r\n", say(&world, fd, "RESET\r\n"));
    assert_string_equal("-NOAUTH Authentication required.\r\n",
                        say(&world, fd, "PING\r\n"));
    assert_string_equal("+OK\r\n", say(&world, fd, "AUTH pods secret\r\n"));
    assert_string_equal("+PONG\r\n", say(&world, fd, "PING\r\n"));
    close(fd);
    end(&world);
}

static void
test_a_message_comes_before_the_answer_of_its_own_publisher(void **state UNUSED)
{
    struct world world;
    begin(&world, false);
    int fd = enter(&world);
    say(&world, fd, "HELLO 3\r\n");
    assert_string_equal(">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
                        ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n"
                        ":1\r\n"
                        "+PONG\r\n",
                        say(&world, fd, "SUBSCRIBE c\r\nPUBLISH c x\r\nPING\r\n"));
    close(fd);
    end(&world);
}

static void test_closing_a_client_takes_its_interests(void **state UNUSED)
{
    struct world world;
    begin(&world, false);
    int fd = enter(&world);
    say(&world, fd, "SUBSCRIBE a b c\r\n");
    say(&world, fd, "PSUBSCRIBE x*\r\n");
    assert_int_equal(3, interest_target_count(world.context.interest, INTEREST_CHANNEL));
    close(fd);
    for (int i = 0; i < 3; i++)
        event_base_loop(world.base, EVLOOP_NONBLOCK);
    assert_int_equal(0, interest_target_count(world.context.interest, INTEREST_CHANNEL));
    assert_int_equal(0, interest_target_count(world.context.interest, INTEREST_PATTERN));
    assert_int_equal(0, client_count(world.context.clients));
    end(&world);
}

static void test_a_client_may_end_within_a_transaction(void **state UNUSED)
{
    struct world world;
    begin(&world, false);
    int fd = enter(&world);
    assert_string_equal("+OK\r\n+QUEUED\r\n",
                        say(&world, fd, "MULTI\r\nPUBLISH a b\r\n"));
    assert_string_equal("-ERR Command not allowed inside a transaction\r\n",
                        say(&world, fd, "SIDRAIL ALL\r\n"));
    close(fd);
    for (int i = 0; i < 3; i++)
        event_base_loop(world.base, EVLOOP_NONBLOCK);
    fd = enter(&world);
    say(&world, fd, "MULTI\r\nCLIENT KILL ID 2 SKIPME no\r\nPING\r\n");
    assert_string_equal("*2\r\n:1\r\n+PONG\r\n", say(&world, fd, "EXEC\r\nPING\r\n"));
    assert_int_equal(0, client_count(world.context.clients));
    close(fd);
    fd = enter(&world);
    say(&world, fd, "MULTI\r\nPUBLISH a b\r\n");
    end(&world);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_sorted_unique_and_complete),
        cmocka_unit_test(test_what_is_wrong_with_a_request_is_told_as_redis_tells_it),
        cmocka_unit_test(test_before_the_password_only_the_handshake_is_run),
        cmocka_unit_test(test_a_message_comes_before_the_answer_of_its_own_publisher),
        cmocka_unit_test(test_closing_a_client_takes_its_interests),
        cmocka_unit_test(test_a_client_may_end_within_a_transaction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
