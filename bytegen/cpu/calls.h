/* What an engine asks at every step, as functions of Python: lists in and lists out, since at a quarter of a millisecond a
   step arrays and conversions are felt. `Steps` (steps.py) is their caller, and says what they take. */

typedef struct {
    char *at;
    size_t size;
} room_t;

/* Working memory that stays from step to step. */
typedef struct {
    room_t ids, scratch, hidden, gathered, logits, mask, numbers, choice, results;
    int64_t fed, rows;
    room_t starts;
} work_t;

/* Room for so many bytes, those that are new 0; 0 with an error of Python's where there is none. */
static void *room_for(room_t *room, int64_t bytes) {
    if ((size_t)bytes > room->size) {
        const size_t size = (size_t)bytes > 2 * room->size ? (size_t)bytes : 2 * room->size;
        char *made = calloc(1, size + 64); /* nothing of a step outlives it but `hidden`, which the next one writes */
        if (!made) {
            PyErr_NoMemory();
            return 0;
        }
        free(room->at);
        room->at = made, room->size = size;
    }
    return room->at + (64 - (uintptr_t)room->at % 64) % 64;
}

static void forget_work(PyObject *capsule) {
    work_t *work = PyCapsule_GetPointer(capsule, "work");
    room_t *rooms[] = {&work->ids, &work->scratch, &work->hidden, &work->gathered, &work->logits, &work->mask,
                       &work->numbers, &work->choice, &work->results, &work->starts};
    for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) free(rooms[i]->at);
    free(work);
}

static PyObject *call_work(PyObject *self, PyObject *none) {
    (void)self, (void)none;
    work_t *work = calloc(1, sizeof(work_t));
    if (!work) return PyErr_NoMemory();
    return PyCapsule_New(work, "work", forget_work);
}

/* feed(work, model, rings, fed, positions, threads): model and rings are addresses, `fed` a list of lists of ids. */
static PyObject *call_feed(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (count != 6 || !PyList_Check(given[3]) || !PyList_Check(given[4]))
        return PyErr_Format(PyExc_TypeError, "feed(work, model, rings, fed, positions, threads)");
    work_t *work = PyCapsule_GetPointer(given[0], "work");
    const model_t *m = PyLong_AsVoidPtr(given[1]);
    const ring_t *rings = PyLong_AsVoidPtr(given[2]);
    const int threads = (int)PyLong_AsLong(given[5]);
    const Py_ssize_t rows = PyList_GET_SIZE(given[3]);
    if (PyErr_Occurred()) return 0;
    int64_t n = 0, at = 0, *starts = room_for(&work->starts, rows * 8);
    if (!starts) return 0;
    if (PyList_GET_SIZE(given[4]) != rows) return PyErr_Format(PyExc_ValueError, "a position for each row");
    for (Py_ssize_t r = 0; r < rows; r++) {
        if (!PyList_Check(PyList_GET_ITEM(given[3], r))) return PyErr_Format(PyExc_TypeError, "a list of lists");
        starts[r] = n;
        n += PyList_GET_SIZE(PyList_GET_ITEM(given[3], r));
    }
    int64_t *ids = room_for(&work->ids, 3 * n * 8);
    float *scratch = room_for(&work->scratch, 4 * bytegen_scratch(m, n, threads));
    float *hidden = room_for(&work->hidden, 4 * n * up(m->dim));
    if (!ids || !scratch || !hidden) return 0;
    for (Py_ssize_t r = 0; r < rows; r++) {
        PyObject *own = PyList_GET_ITEM(given[3], r);
        const int64_t position = PyLong_AsLongLong(PyList_GET_ITEM(given[4], r));
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(own); i++, at++) {
            ids[at] = PyLong_AsLongLong(PyList_GET_ITEM(own, i)), ids[n + at] = r, ids[2 * n + at] = position + i;
        }
    }
    if (PyErr_Occurred()) return 0;
    work->fed = n, work->rows = rows;
    Py_BEGIN_ALLOW_THREADS;
    bytegen_step(m, rings, ids, n, hidden, scratch, threads);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static int numbers_of(PyObject *list, Py_ssize_t n, double *to) {
    if (!PyList_Check(list) || PyList_GET_SIZE(list) != n) {
        PyErr_SetString(PyExc_ValueError, "a list of a number for each place");
        return 0;
    }
    for (Py_ssize_t i = 0; i < n; i++) to[i] = PyFloat_AsDouble(PyList_GET_ITEM(list, i));
    return !PyErr_Occurred();
}

/* Where the tokens at a list of (row, offset) are among those just fed; 0 with an error of Python's where one is not. */
static int places_of(work_t *work, PyObject *list, int64_t *places) {
    const int64_t *starts = room_for(&work->starts, 0);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *place = PyList_GET_ITEM(list, i);
        if (!PyTuple_Check(place) || PyTuple_GET_SIZE(place) != 2) {
            PyErr_SetString(PyExc_TypeError, "places are (row, offset)");
            return 0;
        }
        const int64_t row = PyLong_AsLongLong(PyTuple_GET_ITEM(place, 0));
        const int64_t offset = PyLong_AsLongLong(PyTuple_GET_ITEM(place, 1));
        if (PyErr_Occurred()) return 0;
        const int known = row >= 0 && row < work->rows;
        if (!known || offset < 0 || starts[row] + offset >= (row + 1 < work->rows ? starts[row + 1] : work->fed)) {
            PyErr_Format(PyExc_IndexError, "place (%lld, %lld) was not fed", (long long)row, (long long)offset);
            return 0;
        }
        places[i] = starts[row] + offset;
    }
    return 1;
}

/* draw(work, model, places, masks, uniform, temperature, top_p, min_p, choices, threads): a list of tuples. */
static PyObject *call_draw(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (count != 10 || !PyList_Check(given[2]) || !PyList_Check(given[3]))
        return PyErr_Format(PyExc_TypeError,
                            "draw(work, model, places, masks, uniform, temperature, top_p, min_p, choices, threads)");
    work_t *work = PyCapsule_GetPointer(given[0], "work");
    const model_t *m = PyLong_AsVoidPtr(given[1]);
    const int64_t choices = PyLong_AsLongLong(given[8]), blocks = (choices + BLOCK - 1) / BLOCK;
    const int threads = (int)PyLong_AsLong(given[9]);
    const Py_ssize_t n = PyList_GET_SIZE(given[2]);
    if (PyErr_Occurred()) return 0;
    if (PyList_GET_SIZE(given[3]) != n) return PyErr_Format(PyExc_ValueError, "a mask for each place");
    int64_t *choice = room_for(&work->choice, 2 * n * 8), *places = choice + n;
    float *gathered = room_for(&work->gathered, 4 * n * up(m->dim));
    float *logits = room_for(&work->logits, 4 * n * blocks * BLOCK);
    uint8_t *mask = room_for(&work->mask, n * choices);
    double *numbers = room_for(&work->numbers, 4 * n * 8), *results = room_for(&work->results, 2 * n * 8);
    if (!choice || !gathered || !logits || !mask || !numbers || !results) return 0;
    if (!places_of(work, given[2], places)) return 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        Py_buffer view;
        if (PyObject_GetBuffer(PyList_GET_ITEM(given[3], i), &view, PyBUF_SIMPLE)) return 0;
        const int right = view.len == choices;
        if (right) memcpy(mask + i * choices, view.buf, (size_t)choices);
        PyBuffer_Release(&view);
        if (!right) return PyErr_Format(PyExc_ValueError, "a mask of %lld choices", (long long)choices);
    }
    for (int i = 0; i < 4; i++)
        if (!numbers_of(given[4 + i], n, numbers + i * n)) return 0;
    const float *hidden = room_for(&work->hidden, 0);
    Py_BEGIN_ALLOW_THREADS;
    bytegen_draw(m, hidden, places, n, blocks, choices, mask, numbers, gathered, logits, choice, results, threads);
    Py_END_ALLOW_THREADS;
    PyObject *found = PyList_New(n);
    for (Py_ssize_t i = 0; found && i < n; i++) {
        PyObject *one = Py_BuildValue("Ldd", (long long)choice[i], results[i], results[n + i]);
        if (!one) {
            Py_DECREF(found);
            return 0;
        }
        PyList_SET_ITEM(found, i, one);
    }
    return found;
}

/* ahead(work, model, places, choices, threads): of each place a list of each head's likeliest choice and one of the natural
   logs of their probabilities; and bytes, float32 [places][heads][choices]: see bytegen_ahead. */
static PyObject *call_ahead(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (count != 5 || !PyList_Check(given[2]))
        return PyErr_Format(PyExc_TypeError, "ahead(work, model, places, choices, threads)");
    work_t *work = PyCapsule_GetPointer(given[0], "work");
    const model_t *m = PyLong_AsVoidPtr(given[1]);
    const int64_t choices = PyLong_AsLongLong(given[3]), blocks = (choices + BLOCK - 1) / BLOCK;
    const int threads = (int)PyLong_AsLong(given[4]);
    const Py_ssize_t n = PyList_GET_SIZE(given[2]);
    if (PyErr_Occurred()) return 0;
    const int64_t rows = n * m->mtp_heads, wide = up(m->dim);
    int64_t *places = room_for(&work->choice, n * 8);
    float *gathered = room_for(&work->gathered, 4 * (n + rows) * wide);
    float *logits = room_for(&work->logits, 4 * rows * blocks * BLOCK);
    if (!places || !gathered || !logits || !places_of(work, given[2], places)) return 0;
    PyObject *found = PyBytes_FromStringAndSize(0, rows * choices * 4);
    if (!found) return 0;
    const float *hidden = room_for(&work->hidden, 0);
    Py_BEGIN_ALLOW_THREADS;
    for (Py_ssize_t i = 0; i < n; i++)
        memcpy(gathered + i * wide, hidden + places[i] * wide, (size_t)wide * sizeof(float));
    bytegen_ahead(m, gathered, n, blocks, choices, gathered + n * wide, logits, (float *)PyBytes_AS_STRING(found), threads);
    Py_END_ALLOW_THREADS;
    PyObject *best = PyList_New(n);
    for (Py_ssize_t i = 0; best && i < n; i++) {
        PyObject *ids = PyList_New(m->mtp_heads), *logs = PyList_New(m->mtp_heads), *both = 0;
        for (Py_ssize_t k = 0; ids && logs && k < m->mtp_heads; k++) {
            const float *row = (const float *)PyBytes_AS_STRING(found) + (i * m->mtp_heads + k) * choices;
            int64_t first = 0;
            for (int64_t j = 1; j < choices; j++) first = row[j] > row[first] ? j : first;
            PyList_SET_ITEM(ids, k, PyLong_FromLongLong(first));
            PyList_SET_ITEM(logs, k, PyFloat_FromDouble(row[first]));
        }
        if (ids && logs) both = PyTuple_Pack(2, ids, logs);
        Py_XDECREF(ids);
        Py_XDECREF(logs);
        if (both)
            PyList_SET_ITEM(best, i, both);
        else
            Py_CLEAR(best);
    }
    PyObject *result = best ? PyTuple_Pack(2, best, found) : 0;
    Py_XDECREF(best);
    Py_DECREF(found);
    return result;
}

static PyMethodDef calls[] = {
    {"work", call_work, METH_NOARGS, "Working memory for feed and draw."},
    {"feed", (PyCFunction)(void (*)(void))call_feed, METH_FASTCALL, "See calls.h."},
    {"draw", (PyCFunction)(void (*)(void))call_draw, METH_FASTCALL, "See calls.h."},
    {"ahead", (PyCFunction)(void (*)(void))call_ahead, METH_FASTCALL, "See calls.h."},
    {0, 0, 0, 0},
};
