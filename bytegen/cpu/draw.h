/* A draw from masked logits, as kernels/sampling/masked.py has it: the choices in the order of their probability, the
   inverse of the cumulative distribution. No more of that order is made than the draw needs. */

#define MOST_CHOICES 1024

typedef struct {
    double weight;
    int64_t id;
} choice_t;

static int likelier(const choice_t *a, const choice_t *b) {
    return a->weight > b->weight || (a->weight == b->weight && a->id < b->id);
}

/* Lets heap[at] sink to its place in a heap with the likeliest first. */
static void sink(choice_t *heap, int64_t count, int64_t at) {
    const choice_t moved = heap[at];
    for (int64_t child = 2 * at + 1; child < count; at = child, child = 2 * at + 1) {
        if (child + 1 < count && likelier(heap + child + 1, heap + child)) child++;
        if (!likelier(heap + child, &moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static choice_t take(choice_t *heap, int64_t *count) {
    const choice_t first = heap[0];
    heap[0] = heap[--*count];
    if (*count) sink(heap, *count, 0);
    return first;
}

/* The choice of one row of at most MOST_CHOICES; temperature 0 takes the likeliest. *logprob is the natural log of its
   probability, *removed the probability that the mask took at temperature 1. -1 where the mask allows nothing. */
static int64_t draw(weigh_fn *weigh, const float *row, const uint8_t *allowed, int64_t choices, double uniform,
                    double temperature, double top_p, double min_p, double *logprob, double *removed) {
    double w[MOST_CHOICES], highest = -INFINITY, best = -INFINITY, all = 0.0, inside = 0.0;
    choice_t heap[MOST_CHOICES], taken[MOST_CHOICES];
    int64_t likeliest = -1;
    for (int64_t i = 0; i < choices; i++) {
        if (row[i] > highest) highest = row[i];
        if (allowed[i] && row[i] > best) best = row[i], likeliest = i;
    }
    weigh(w, row, highest, 1.0, choices);
    for (int64_t i = 0; i < choices; i++) {
        all += w[i];
        inside += allowed[i] ? w[i] : 0.0;
    }
    *removed = inside < all ? 1.0 - inside / all : 0.0;
    *logprob = 0.0;
    if (temperature == 0.0 || likeliest < 0) return likeliest;
    /* What is not allowed may be above `best`; its weight is not looked at. */
    if (temperature != 1.0 || best < highest) weigh(w, row, best, temperature, choices);
    int64_t count = 0, kept = 0;
    double total = 0.0, sum = 0.0, reached = 0.0;
    for (int64_t i = 0; i < choices; i++)
        if (allowed[i] && w[i] > 0.0) heap[count++] = (choice_t){w[i], i}, total += w[i];
    for (int64_t i = count / 2 - 1; i >= 0; i--) sink(heap, count, i);
    if (top_p < 1.0 || min_p > 0.0) {
        do {
            taken[kept] = take(heap, &count);
            sum += taken[kept++].weight;
        } while (count && sum / total < top_p && heap[0].weight >= min_p * taken[0].weight);
    } else {
        sum = total;
    }
    const double target = uniform * sum;
    choice_t drawn;
    int64_t at = 0;
    do {
        drawn = at < kept ? taken[at] : take(heap, &count);
        at++;
        reached += drawn.weight;
    } while (reached <= target && (kept ? at < kept : count > 0));
    *logprob = log(drawn.weight / sum);
    return drawn.id;
}
