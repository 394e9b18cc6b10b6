/* Mistakes that need C++: operators that do not match, objects deleted twice or from the wrong address.
 *
 * Caught: as its like in C, unless the case says otherwise. */
#include "suite.h"

#include <memory>
#include <new>

/* The compiler must see neither where a pointer comes from nor what it points to. */
template <typename T> static T *veiled(T *pointer) { return static_cast<T *>(hidden(pointer)); }

namespace {
struct Plain {
    char bytes[64];
};
struct First {
    virtual ~First() {}
    char bytes[24];
};
struct Second {
    char bytes[32];
};
struct Both : First, Second {};
struct Counted { /* Has a destructor, so an array of it carries a count in front. */
    ~Counted() { bytes[0] = 0; }
    char bytes[24];
};
struct alignas(128) Aligned {
    char bytes[128];
};
} // namespace

/* ---- twice ---- */

CASE(double_delete, SMALL, REPORT, DEFAULT_BAR, "deletes an object twice, another one in between") {
    Plain *object = veiled(new Plain), *other = veiled(new Plain);
    delete object;
    delete other;
    if (mistake) delete veiled(object);
    return MISSED;
}

CASE(double_delete_array, SLABS, REPORT, DEFAULT_BAR, "deletes an array twice, another one in between") {
    char *array = veiled(new char[size]), *other = veiled(new char[size]);
    delete[] array;
    delete[] other;
    if (mistake) delete[] veiled(array);
    return MISSED;
}

CASE(two_owners, SMALL, REPORT, DEFAULT_BAR, "two std::unique_ptr own the same object") {
    Plain *object = veiled(new Plain);
    std::unique_ptr<Plain> one(object);
    std::unique_ptr<Plain> other(mistake ? veiled(object) : new Plain);
    one.reset();
    churn(32, 8);
    other.reset();
    return MISSED;
}

/* ---- from the wrong address ---- */

CASE(delete_second_base, NONE, REPORT, DEFAULT_BAR,
     "deletes an object through its second base class, which has no virtual destructor") {
    Both *object = veiled(new Both);
    if (mistake) {
        delete veiled(static_cast<Second *>(object));
    } else {
        delete object;
    }
    return MISSED;
}

CASE(delete_behind_count, NONE, REPORT, DEFAULT_BAR, "delete instead of delete[] for an array with a count in front") {
    Counted *array = veiled(new Counted[4]);
    if (mistake) {
        delete veiled(array);
    } else {
        delete[] array;
    }
    return MISSED;
}

CASE(delete_local, NONE, STOP, DEFAULT_BAR, "deletes a local variable") {
    Plain local = {};
    Plain *object = veiled(new Plain);
    delete veiled(mistake ? &local : object);
    return MISSED;
}

/* ---- operators that do not match ---- */

CASE(malloc_delete, SMALL, REPORT, BEYOND, "malloc, then delete") {
    char *block = static_cast<char *>(hidden(malloc(size)));
    mistake ? delete veiled(block) : free(block);
    return MISSED;
}

CASE(new_free, SMALL, REPORT, BEYOND, "new, then free") {
    Plain *object = veiled(new Plain);
    mistake ? free(hidden(object)) : delete object;
    return MISSED;
}

CASE(new_array_delete, SMALL, REPORT, BEYOND, "new[], then delete") {
    char *array = veiled(new char[size]);
    if (mistake) {
        delete veiled(array);
    } else {
        delete[] array;
    }
    return MISSED;
}

CASE(new_delete_array, SMALL, REPORT, BEYOND, "new, then delete[]") {
    Plain *object = veiled(new Plain);
    if (mistake) {
        delete[] veiled(object);
    } else {
        delete object;
    }
    return MISSED;
}

CASE(aligned_new_delete, NONE, REPORT, BEYOND, "new of an over-aligned type, then the delete of a type that is not") {
    Aligned *object = veiled(new Aligned);
    if (mistake) {
        ::operator delete(hidden(object));
    } else {
        delete object;
    }
    return MISSED;
}

/* ---- wrong sizes ---- */

CASE(sized_delete_smaller, SLABS, REPORT, BEYOND,
     "sized delete with half of the size, as of a base class without a virtual destructor") {
    void *object = hidden(::operator new(size));
    ::operator delete(object, mistake ? size / 2 : size);
    return MISSED;
}

CASE(sized_delete_larger, SLABS, REPORT, BEYOND, "sized delete with twice the size") {
    void *object = hidden(::operator new(size));
    ::operator delete(object, mistake ? size * 2 : size);
    return MISSED;
}

CASE(new_largest, NONE, NO_USE, BEYOND, "operator new of SIZE_MAX bytes; caught if it throws std::bad_alloc") {
    try {
        hidden(::operator new(hidden_size(mistake ? SIZE_MAX : 64)));
    } catch (const std::bad_alloc &) {
        return HARMLESS;
    }
    return MISSED;
}

CASE(new_array_overflow, NONE, NO_USE, BEYOND,
     "new[] of so many objects that their bytes overflow; caught if it throws std::bad_alloc") {
    try {
        hidden(new Plain[hidden_size(mistake ? SIZE_MAX / sizeof(Plain) + 2 : 2)]);
    } catch (const std::bad_alloc &) {
        return HARMLESS;
    }
    return MISSED;
}

CASE(new_nothrow_negative, NONE, NO_USE, BEYOND, "new (std::nothrow) of -64 bytes; caught if it returns null") {
    void *block = hidden(::operator new(hidden_size(mistake ? (size_t)-64 : 64), std::nothrow));
    return block == NULL ? HARMLESS : MISSED;
}
