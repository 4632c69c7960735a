/* Who is spared its own messages: one process with one host_id, told or proven to be of a version that drops them. */
#include "tests/unit/unit.h"

#include "broker/echo_book.h"

static const uint8_t mine[ENVELOPE_HOST_ID_LEN] = {1};
static const uint8_t other[ENVELOPE_HOST_ID_LEN] = {2};

static struct echo_book *book;
static struct echo_view publishing, subscribing;

static struct envelope from(const uint8_t host_id[ENVELOPE_HOST_ID_LEN],
                            enum message_method method)
{
    struct envelope envelope = {.flags = ENVELOPE_HAS_HOST, .method = (uint8_t)method};
    memcpy(envelope.host_id, host_id, ENVELOPE_HOST_ID_LEN);
    return envelope;
}

static bool is_spared(enum echo_mode mode, const uint8_t *host_id,
                      enum message_method method)
{
    struct envelope envelope = from(host_id, method);
    return echo_view_spares(&subscribing, mode, &envelope);
}

static void open_pod(bool is_process)
{
    book = echo_book_new();
    echo_view_attach(&publishing, book, "pod", is_process);
    echo_view_attach(&subscribing, book, "pod", is_process);
    echo_view_subscribe(&subscribing);
}

static void close_pod(void)
{
    echo_view_detach(&publishing);
    echo_view_detach(&subscribing);
    echo_book_free(book);
}

static void test_off_spares_own_messages_and_no_others(void **state UNUSED)
{
    open_pod(false);
    assert_false(is_spared(ECHO_OFF, mine, METHOD_EMIT)); /* not known yet */
    echo_view_learn(&publishing, METHOD_CALLBACK, mine);  /* that of whom it answers */
    assert_false(is_spared(ECHO_OFF, mine, METHOD_EMIT));
    echo_view_learn(&publishing, METHOD_EMIT, mine);
    assert_true(is_spared(ECHO_OFF, mine, METHOD_EMIT));
    assert_true(is_spared(ECHO_OFF, mine, METHOD_CLOSE_ROOM));
    assert_false(is_spared(ECHO_OFF, mine, METHOD_CALLBACK));
    assert_false(is_spared(ECHO_OFF, other, METHOD_EMIT));
    assert_false(is_spared(ECHO_ON, mine, METHOD_EMIT));
    assert_false(is_spared(ECHO_AUTO, mine, METHOD_EMIT));
    struct envelope bare = from(mine, METHOD_EMIT);
    bare.flags = 0;
    assert_false(echo_view_spares(&subscribing, ECHO_OFF, &bare));
    close_pod();
}

static void test_automatic_needs_a_proven_version_and_a_process(void **state UNUSED)
{
    for (int is_process = 0; is_process < 2; is_process++) {
        open_pod(is_process);
        echo_view_learn(&publishing, METHOD_EMIT, mine);
        assert_false(is_spared(ECHO_AUTO, mine, METHOD_EMIT));
        echo_view_learn(&publishing, METHOD_CLOSE_ROOM, mine);
        assert_int_equal(is_process, is_spared(ECHO_AUTO, mine, METHOD_EMIT));
        close_pod();
    }
}

static void test_several_processes_under_one_name_are_not_spared(void **state UNUSED)
{
    open_pod(false);
    echo_view_learn(&publishing, METHOD_EMIT, mine);
    struct echo_view second = {0};
    echo_view_attach(&second, book, "pod", false);
    assert_true(is_spared(ECHO_OFF, mine, METHOD_EMIT));
    echo_view_subscribe(&second);
    assert_false(is_spared(ECHO_OFF, mine, METHOD_EMIT));
    echo_view_detach(&second);
    assert_true(is_spared(ECHO_OFF, mine, METHOD_EMIT));
    echo_view_learn(&publishing, METHOD_EMIT, other);
    assert_false(is_spared(ECHO_OFF, mine, METHOD_EMIT));
    close_pod();
}

static void test_an_entry_ends_with_its_last_connection(void **state UNUSED)
{
    open_pod(false);
    echo_view_learn(&publishing, METHOD_EMIT, mine);
    echo_view_detach(&publishing);
    assert_true(is_spared(ECHO_OFF, mine, METHOD_EMIT));
    echo_view_detach(&subscribing);
    assert_false(is_spared(ECHO_OFF, mine, METHOD_EMIT));
    echo_view_attach(&subscribing, book, "pod", false);
    echo_view_subscribe(&subscribing);
    assert_false(is_spared(ECHO_OFF, mine, METHOD_EMIT)); /* forgotten */
    close_pod();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_off_spares_own_messages_and_no_others),
        cmocka_unit_test(test_automatic_needs_a_proven_version_and_a_process),
        cmocka_unit_test(test_several_processes_under_one_name_are_not_spared),
        cmocka_unit_test(test_an_entry_ends_with_its_last_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
