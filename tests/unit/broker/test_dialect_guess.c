/*
 * Proves what is learned of a pod from what it publishes, that a name is never overruled, and by which dialect a
 * message is read.
 */
#include "tests/unit/unit.h"

#include "broker/dialect_guess.h"

static struct scan_scratch *scratch;

static struct message scan(const char *payload)
{
    struct message message;
    message_scan(slice_from_text(payload), &message_policy_default, scratch, &message);
    return message;
}

#define BARE     "{\"method\":\"emit\",\"data\":\"x\"}"
#define LIST     "{\"method\":\"emit\",\"data\":[1]}"
#define BINARY14 "{\"method\":\"emit\",\"data\":[{},\"AA==\"],\"binary\":true}"
#define BINARY15 "{\"method\":\"emit\",\"data\":[[{}],\"AA==\"],\"binary\":true}"
#define NO_DATA  "{\"method\":\"disconnect\",\"sid\":\"a\"}"
#define PICKLE                                                                           \
    "\x80\x04}\x8c\x06method\x8c\x04"                                                    \
    "emits."
#define OBJECT                                                                           \
    "\x80\x04}\x8c\x06method\x8c\x04"                                                    \
    "emitsc__builtin__\neval\n."
#define OPAQUE "hello"

struct step {
    const char *payload;
    enum dialect_learned learned;
    enum message_dialect dialect;
    enum dialect_basis basis;
};

static void assert_steps(const struct step *steps, size_t count)
{
    struct dialect_guess guess;
    dialect_guess_init(&guess);
    assert_int_equal(DIALECT_JSON14, guess.dialect);
    assert_int_equal(DIALECT_UNKNOWN, guess.basis);
    for (size_t i = 0; i < count; i++) {
        struct message message = scan(steps[i].payload);
        assert_int_equal(steps[i].learned, dialect_guess_learn(&guess, &message));
        assert_int_equal(steps[i].dialect, guess.dialect);
        assert_int_equal(steps[i].basis, guess.basis);
    }
}

static void test_bare_data_proves_json14_and_lists_assume_json15(void **state)
{
    (void)state;
    static const struct step steps[] = {
        {OPAQUE, DIALECT_NOTHING_NEW, DIALECT_JSON14, DIALECT_UNKNOWN},
        {OBJECT, DIALECT_NOTHING_NEW, DIALECT_JSON14, DIALECT_UNKNOWN},
        {NO_DATA, DIALECT_NOTHING_NEW, DIALECT_JSON14, DIALECT_UNKNOWN},
        {LIST, DIALECT_LEARNED, DIALECT_JSON15, DIALECT_ASSUMED},
        {LIST, DIALECT_NOTHING_NEW, DIALECT_JSON15, DIALECT_ASSUMED},
        {BINARY15, DIALECT_NOTHING_NEW, DIALECT_JSON15, DIALECT_ASSUMED},
        {NO_DATA, DIALECT_NOTHING_NEW, DIALECT_JSON15, DIALECT_ASSUMED},
        {BARE, DIALECT_CORRECTED, DIALECT_JSON14, DIALECT_PROVEN},
        {LIST, DIALECT_NOTHING_NEW, DIALECT_JSON14, DIALECT_PROVEN},
        {BINARY15, DIALECT_NOTHING_NEW, DIALECT_JSON14, DIALECT_PROVEN},
    };
    assert_steps(steps, ARRAY_LEN(steps));
}

static void test_the_first_proof_of_what_was_given_anyway_is_learned(void **state)
{
    (void)state;
    static const struct step steps[] = {
        {BINARY14, DIALECT_LEARNED, DIALECT_JSON14, DIALECT_PROVEN},
        {BARE, DIALECT_NOTHING_NEW, DIALECT_JSON14, DIALECT_PROVEN},
    };
    assert_steps(steps, ARRAY_LEN(steps));
}

static void test_pickles_prove_pickle_until_json_shows_another_version(void **state)
{
    (void)state;
    static const struct step steps[] = {
        {PICKLE, DIALECT_LEARNED, DIALECT_PICKLE, DIALECT_PROVEN},
        {PICKLE, DIALECT_NOTHING_NEW, DIALECT_PICKLE, DIALECT_PROVEN},
        {OPAQUE, DIALECT_NOTHING_NEW, DIALECT_PICKLE, DIALECT_PROVEN},
        {NO_DATA, DIALECT_CORRECTED, DIALECT_JSON14, DIALECT_UNKNOWN},
        {PICKLE, DIALECT_LEARNED, DIALECT_PICKLE, DIALECT_PROVEN},
        {LIST, DIALECT_CORRECTED, DIALECT_JSON15, DIALECT_ASSUMED},
        {PICKLE, DIALECT_CORRECTED, DIALECT_PICKLE, DIALECT_PROVEN},
        {BARE, DIALECT_CORRECTED, DIALECT_JSON14, DIALECT_PROVEN},
        {PICKLE, DIALECT_CORRECTED, DIALECT_PICKLE, DIALECT_PROVEN},
    };
    assert_steps(steps, ARRAY_LEN(steps));
}

static void test_a_name_is_never_overruled(void **state)
{
    (void)state;
    static const char *const payloads[] = {BARE, LIST, PICKLE, NO_DATA};
    for (int dialect = DIALECT_PICKLE; dialect <= DIALECT_JSON15; dialect++)
        for (size_t i = 0; i < ARRAY_LEN(payloads); i++) {
            struct dialect_guess guess;
            struct message message = scan(payloads[i]);
            dialect_guess_name(&guess, (enum message_dialect)dialect);
            assert_int_equal(DIALECT_NOTHING_NEW, dialect_guess_learn(&guess, &message));
            assert_int_equal(dialect, guess.dialect);
            assert_int_equal(DIALECT_NAMED, guess.basis);
        }
    struct dialect_guess guess;
    dialect_guess_name(&guess, DIALECT_RAW);
    assert_int_equal(DIALECT_UNKNOWN, guess.basis);
}

static void test_a_list_is_read_as_the_dialect_of_its_publisher(void **state)
{
    (void)state;
    static const struct {
        const char *payload;
        struct dialect_guess guess;
        enum message_dialect expected;
    } rows[] = {
        {LIST, {DIALECT_JSON14, DIALECT_UNKNOWN}, DIALECT_JSON15},
        {LIST, {DIALECT_JSON15, DIALECT_ASSUMED}, DIALECT_JSON15},
        {LIST, {DIALECT_JSON14, DIALECT_PROVEN}, DIALECT_JSON14},
        {LIST, {DIALECT_JSON14, DIALECT_NAMED}, DIALECT_JSON14},
        {LIST, {DIALECT_PICKLE, DIALECT_PROVEN}, DIALECT_JSON15},
        {LIST, {DIALECT_PICKLE, DIALECT_NAMED}, DIALECT_JSON14},
        {BARE, {DIALECT_JSON15, DIALECT_ASSUMED}, DIALECT_JSON14},
        {BARE, {DIALECT_JSON15, DIALECT_NAMED}, DIALECT_JSON15},
        {PICKLE, {DIALECT_JSON15, DIALECT_NAMED}, DIALECT_PICKLE},
        {OPAQUE, {DIALECT_JSON15, DIALECT_NAMED}, DIALECT_RAW},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct message message = scan(rows[i].payload);
        assert_int_equal(rows[i].expected, dialect_guess_read(&rows[i].guess, &message));
    }
}

static void test_a_client_may_name_its_dialect_behind_its_name(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *name; /* NULL: it ends with no dialect */
        enum message_dialect dialect;
    } rows[] = {
        {"pod-7:json15", "pod-7", DIALECT_JSON15},
        {"pod-7:json14", "pod-7", DIALECT_JSON14},
        {"a:b:pickle", "a:b", DIALECT_PICKLE},
        {":auto", "", DIALECT_RAW},
        {"pod-7", NULL, DIALECT_RAW},
        {"json15", NULL, DIALECT_RAW},
        {"pod-7:json16", NULL, DIALECT_RAW},
        {"pod-7:", NULL, DIALECT_RAW},
        {"pod-7:JSON15", NULL, DIALECT_RAW},
        {"pod-7:raw", NULL, DIALECT_RAW},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct slice name = slice_from_text(rows[i].text);
        enum message_dialect dialect = DIALECT_RAW;
        assert_int_equal(rows[i].name != NULL, dialect_name_split(&name, &dialect));
        const char *left = rows[i].name != NULL ? rows[i].name : rows[i].text;
        assert_true(slice_equals(slice_from_text(left), name));
        assert_int_equal(rows[i].dialect, dialect);
    }
}

static int setup(void **state)
{
    (void)state;
    scratch = scan_scratch_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scan_scratch_free(scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bare_data_proves_json14_and_lists_assume_json15),
        cmocka_unit_test(test_the_first_proof_of_what_was_given_anyway_is_learned),
        cmocka_unit_test(test_pickles_prove_pickle_until_json_shows_another_version),
        cmocka_unit_test(test_a_name_is_never_overruled),
        cmocka_unit_test(test_a_list_is_read_as_the_dialect_of_its_publisher),
        cmocka_unit_test(test_a_client_may_name_its_dialect_behind_its_name),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
