/* Who wants what: against a naive list under random operations, and Redis' patterns by table. */
#include "tests/unit/unit.h"

#include "broker/interest.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SUBSCRIBERS 7
#define NAMES       23

/* What the table should hold, as plainly as can be. */
struct model {
    bool wanted[SUBSCRIBERS][INTEREST_KINDS][NAMES];
    bool active[SUBSCRIBERS][INTEREST_KINDS][NAMES];
    int targets[INTEREST_KINDS]; /* by the callbacks */
};

static struct slice name_of(int number)
{
    static char names[NAMES][16];
    snprintf(names[number], sizeof(names[number]), "name-%d", number);
    return slice_from_text(names[number]);
}

static void on_first(void *context, struct interest_target *target)
{
    ((struct model *)context)->targets[target->kind]++;
}

static void on_last(void *context, struct interest_target *target)
{
    ((struct model *)context)->targets[target->kind]--;
}

static unsigned count_active(const struct model *model, int kind, int name)
{
    unsigned count = 0;
    for (int i = 0; i < SUBSCRIBERS; i++)
        count += model->active[i][kind][name];
    return count;
}

static bool is_target(const struct model *model, int kind, int name)
{
    for (int i = 0; i < SUBSCRIBERS; i++)
        if (model->wanted[i][kind][name])
            return true;
    return false;
}

static void compare(const struct interest_table *table, const struct model *model,
                    const struct subscriber *subscribers)
{
    interest_table_check(table);
    for (int kind = 0; kind < INTEREST_KINDS; kind++) {
        unsigned targets = 0;
        for (int name = 0; name < NAMES; name++) {
            const struct interest_target *target =
                interest_target_find(table, (enum interest_kind)kind, name_of(name));
            assert_int_equal(is_target(model, kind, name), target != NULL);
            targets += target != NULL;
            if (target != NULL)
                assert_int_equal(count_active(model, kind, name), target->active);
            for (int i = 0; i < SUBSCRIBERS; i++)
                assert_int_equal(model->wanted[i][kind][name],
                                 interest_find(table, &subscribers[i],
                                               (enum interest_kind)kind,
                                               name_of(name)) != NULL);
        }
        assert_int_equal(targets, interest_target_count(table, (enum interest_kind)kind));
        assert_int_equal(targets, model->targets[kind]);
        for (int i = 0; i < SUBSCRIBERS; i++) {
            unsigned count = 0;
            for (int name = 0; name < NAMES; name++)
                count += model->active[i][kind][name];
            assert_int_equal(count, subscribers[i].counts[kind]);
        }
    }
    for (int name = 0; name < NAMES; name++) {
        unsigned receivers = count_active(model, INTEREST_CHANNEL, name) +
                             count_active(model, INTEREST_PATTERN, name);
        assert_int_equal(receivers, interest_receivers(table, name_of(name)));
    }
}

static void step(struct interest_table *table, struct model *model,
                 struct subscriber *subscribers)
{
    int i = rand() % SUBSCRIBERS;
    int kind = rand() % INTEREST_KINDS;
    int name = rand() % NAMES;
    switch (rand() % 8) {
    case 0:
    case 1:
    case 2: {
        bool added;
        struct interest *interest = interest_add(
            table, &subscribers[i], (enum interest_kind)kind, name_of(name), &added);
        assert_int_equal(!model->wanted[i][kind][name], added);
        model->wanted[i][kind][name] = true;
        if (rand() % 3 > 0) {
            interest_activate(interest);
            model->active[i][kind][name] = true;
        }
        break;
    }
    case 3:
        if (rand() % 8 == 0) {
            interest_remove_all(table, &subscribers[i]);
            memset(model->wanted[i], 0, sizeof(model->wanted[i]));
            memset(model->active[i], 0, sizeof(model->active[i]));
        }
        break;
    default:
        assert_int_equal(model->wanted[i][kind][name],
                         interest_remove(table, &subscribers[i], (enum interest_kind)kind,
                                         name_of(name)));
        model->wanted[i][kind][name] = model->active[i][kind][name] = false;
        break;
    }
}

static void test_the_table_agrees_with_a_list(void **state UNUSED)
{
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    static struct model model;
    const struct interest_callbacks callbacks = {on_first, on_last, &model};
    struct interest_table *table = interest_table_new(&callbacks);
    struct subscriber subscribers[SUBSCRIBERS];
    for (int i = 0; i < SUBSCRIBERS; i++)
        subscriber_init(&subscribers[i]);
    for (int i = 0; i < 4000; i++) {
        step(table, &model, subscribers);
        compare(table, &model, subscribers);
    }
    for (int i = 0; i < SUBSCRIBERS; i++)
        interest_remove_all(table, &subscribers[i]);
    assert_int_equal(0, model.targets[0] + model.targets[1]);
    interest_table_free(table);
}

static void test_thousands_of_channels_of_one_subscriber_are_found(void **state UNUSED)
{
    const struct interest_callbacks none = {0};
    struct interest_table *table = interest_table_new(&none);
    struct subscriber subscriber;
    subscriber_init(&subscriber);
    char name[16];
    bool added;
    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof(name), "c%d", i);
        interest_add(table, &subscriber, INTEREST_CHANNEL, slice_from_text(name), &added);
        assert_true(added);
    }
    interest_table_check(table);
    for (int i = 0; i < 20000; i += 2) {
        snprintf(name, sizeof(name), "c%d", i);
        assert_true(
            interest_remove(table, &subscriber, INTEREST_CHANNEL, slice_from_text(name)));
    }
    assert_int_equal(10000, interest_target_count(table, INTEREST_CHANNEL));
    interest_remove_all(table, &subscriber);
    interest_table_free(table);
}

static void test_patterns_match_as_redis_matches_them(void **state UNUSED)
{
    static const struct {
        const char *pattern, *name;
        bool matches;
    } rows[] = {
        {"*", "", true},
        {"*", "anything", true},
        {"", "", true},
        {"", "a", false},
        {"a", "", false},
        {"flask-*", "flask-socketio", true},
        {"flask-*", "flask", false},
        {"h?llo", "hello", true},
        {"h?llo", "hllo", false},
        {"h[ae]llo", "hallo", true},
        {"h[ae]llo", "hillo", false},
        {"h[^e]llo", "hallo", true},
        {"h[^e]llo", "hello", false},
        {"h[a-c]llo", "hbllo", true},
        {"h[c-a]llo", "hbllo", true},
        {"h[a-c]llo", "hdllo", false},
        {"a\\*b", "a*b", true},
        {"a\\*b", "axb", false},
        {"a\\", "a\\", true},
        {"[\\]]", "]", true},
        {"[a", "a", true},
        {"*a*b*c", "xxaxxbxxc", true},
        {"*a*b*c", "xxaxxbxx", false},
        {"a*", "a", true},
        {"**", "x", true},
        {"?", "", false},
        {"*?", "", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        size_t len = strlen(rows[i].pattern);
        char *pattern = guarded_copy(rows[i].pattern, len);
        bool matches = interest_pattern_matches(slice_of(pattern, len),
                                                slice_from_text(rows[i].name));
        if (matches != rows[i].matches)
            fail_msg("%s against %s", rows[i].pattern, rows[i].name);
        guarded_free(pattern, len);
    }
}

static void test_a_cruel_pattern_takes_little_time(void **state UNUSED)
{
    char name[2001];
    memset(name, 'a', 2000);
    name[2000] = '\0';
    char pattern[401];
    for (int i = 0; i < 200; i++)
        memcpy(pattern + i * 2, "*a", 2);
    pattern[399] = 'b';
    pattern[400] = '\0';
    assert_false(
        interest_pattern_matches(slice_from_text(pattern), slice_from_text(name)));
}

static void test_only_whole_interests_are_told(void **state UNUSED)
{
    struct model model = {0};
    const struct interest_callbacks callbacks = {on_first, on_last, &model};
    struct interest_table *table = interest_table_new(&callbacks);
    struct subscriber subscribers[2];
    subscriber_init(&subscribers[0]);
    subscriber_init(&subscribers[1]);
    struct interest *partial =
        interest_add_partial(table, &subscribers[0], INTEREST_CHANNEL, name_of(0));
    assert_int_equal(0, model.targets[INTEREST_CHANNEL]);
    interest_activate(partial);
    assert_int_equal(1, interest_receivers(table, name_of(0)));
    interest_set_whole(table, partial, true);
    interest_set_whole(table, partial, true);
    bool added;
    interest_add(table, &subscribers[1], INTEREST_CHANNEL, name_of(0), &added);
    assert_int_equal(1, model.targets[INTEREST_CHANNEL]);
    interest_set_whole(table, partial, false);
    assert_int_equal(1, model.targets[INTEREST_CHANNEL]);
    interest_table_check(table);
    interest_remove_all(table, &subscribers[1]);
    assert_int_equal(0, model.targets[INTEREST_CHANNEL]);
    interest_remove_all(table, &subscribers[0]);
    assert_int_equal(0, model.targets[INTEREST_CHANNEL]);
    interest_table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_whole_interests_are_told),
        cmocka_unit_test(test_the_table_agrees_with_a_list),
        cmocka_unit_test(test_thousands_of_channels_of_one_subscriber_are_found),
        cmocka_unit_test(test_patterns_match_as_redis_matches_them),
        cmocka_unit_test(test_a_cruel_pattern_takes_little_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
