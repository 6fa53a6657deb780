/* The corner of cuBLAS that a trainer calls, on host memory: column-major, alpha and beta by value.
 *
 * A call is checked, packed into a `struct call` and given to the recorder, who computes it with
 * simulator_compute() now or when a captured graph is launched. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { F32 = 0, F64 = 1, F16 = 2, BF16 = 14 };
enum { COMPUTE_32F = 68, COMPUTE_64F = 70, COMPUTE_32F_FAST_TF32 = 77 };

struct call {
    void *stream, *workspace, *a, *b, *c;
    size_t workspace_size;
    double alpha, beta;
    long long apart_a, apart_b, apart_c;
    int create, ta, tb, m, n, k, lda, ldb, ldc, type_ab, type_c, compute, count;
};
struct handle {
    long long magic;
    void *stream, *workspace;
    size_t workspace_size;
};
#define MAGIC 0x78706e6574LL

static int (*recorder)(struct call *);
void simulator_set_recorder(int (*function)(struct call *)) { recorder = function; }

static int known(struct handle *h) { return h && h->magic == MAGIC; }

int cublasCreate_v2(struct handle **h) {
    struct call call = {.create = 1};
    if (recorder && recorder(&call)) return NOT_INITIALIZED;
    *h = calloc(1, sizeof **h);
    (*h)->magic = MAGIC;
    return SUCCESS;
}
int cublasDestroy_v2(struct handle *h) {
    if (!known(h)) return NOT_INITIALIZED;
    h->magic = 0;
    free(h);
    return SUCCESS;
}
int cublasSetStream_v2(struct handle *h, void *stream) {
    if (!known(h)) return NOT_INITIALIZED;
    h->stream = stream;
    h->workspace = NULL; /* as documented: back to the library's own */
    h->workspace_size = 0;
    return SUCCESS;
}
int cublasSetWorkspace_v2(struct handle *h, void *workspace, size_t size) {
    if (!known(h)) return NOT_INITIALIZED;
    if ((uintptr_t)workspace % 16) return INVALID_VALUE; /* 256 on a GPU */
    h->workspace = workspace;
    h->workspace_size = size;
    return SUCCESS;
}
int cublasGetVersion_v2(struct handle *h, int *version) {
    *version = 130100;
    return SUCCESS;
}

static float bits_to_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
/* Keep the upper bits of a float, to nearest, ties to even. */
static uint32_t rounded(float x, int dropped) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
    bits += (1u << (dropped - 1)) - 1 + (bits >> dropped & 1);
    return bits >> dropped << dropped;
}
static double load(const void *p, size_t i, int type, int tf32) {
    switch (type) {
    case F32: return tf32 ? bits_to_float(rounded(((float *)p)[i], 13)) : ((float *)p)[i];
    case F64: return ((double *)p)[i];
    case F16: return ((_Float16 *)p)[i];
    default: return bits_to_float((uint32_t)((uint16_t *)p)[i] << 16);
    }
}
static void store(void *p, size_t i, int type, double x) {
    switch (type) {
    case F32: ((float *)p)[i] = x; break;
    case F64: ((double *)p)[i] = x; break;
    case F16: ((_Float16 *)p)[i] = (float)x; break;
    default: ((uint16_t *)p)[i] = rounded(x, 16) >> 16;
    }
}

static size_t bytes(int type) { return type == F64 ? 8 : type == F32 ? 4 : 2; }

/* The operands are unpacked to doubles, op(A) by columns, so that the inner loop is a vector's. */
static void compute_one(struct call *s) {
    size_t m = s->m, n = s->n, k = s->k, tf32 = s->compute == COMPUTE_32F_FAST_TF32;
    double *a = malloc((m * k + m + 1) * sizeof *a), *sum = a + m * k;
    for (size_t p = 0; p < k; p++)
        for (size_t i = 0; i < m; i++)
            a[i + p * m] = load(s->a, s->ta ? p + i * s->lda : i + p * s->lda, s->type_ab, tf32);
    for (size_t j = 0; j < n; j++) {
        memset(sum, 0, m * sizeof *sum);
        for (size_t p = 0; p < k; p++) {
            double b = load(s->b, s->tb ? j + p * s->ldb : p + j * s->ldb, s->type_ab, tf32);
            for (size_t i = 0; i < m; i++) sum[i] += a[i + p * m] * b;
        }
        for (size_t i = 0; i < m; i++) {
            size_t at = i + j * s->ldc; /* with beta = 0, C is not read: it may hold NaN */
            double old = s->beta == 0 ? 0 : s->beta * load(s->c, at, s->type_c, 0);
            store(s->c, at, s->type_c, s->alpha * sum[i] + old);
        }
    }
    free(a);
}
void simulator_compute(struct call *s) {
    for (int i = 0; i < s->count; i++) {
        struct call one = *s;
        one.a = (char *)s->a + i * s->apart_a * (long long)bytes(s->type_ab);
        one.b = (char *)s->b + i * s->apart_b * (long long)bytes(s->type_ab);
        one.c = (char *)s->c + i * s->apart_c * (long long)bytes(s->type_c);
        compute_one(&one);
    }
}

static int supported(int a, int b, int c, int compute) {
    if (a != b) return 0;
    if (compute == COMPUTE_64F) return a == F64 && c == F64;
    if (compute == COMPUTE_32F_FAST_TF32) return a == F32 && c == F32;
    if (compute != COMPUTE_32F) return 0;
    return (a == F32 && c == F32) || ((a == F16 || a == BF16) && (c == F32 || c == a));
}
static int at_least(int x, int least) { return x >= (least > 1 ? least : 1); }

int cublasGemmStridedBatchedEx(
        struct handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *A,
        int type_a, int lda, long long apart_a, const void *B, int type_b, int ldb,
        long long apart_b, const void *beta, void *C, int type_c, int ldc, long long apart_c,
        int count, int compute, int algo) {
    if (!known(h)) return NOT_INITIALIZED;
    if (ta < 0 || ta > 2 || tb < 0 || tb > 2 || m < 0 || n < 0 || k < 0) return INVALID_VALUE;
    if (!at_least(lda, ta ? k : m) || !at_least(ldb, tb ? n : k) || !at_least(ldc, m))
        return INVALID_VALUE;
    if (!alpha || !beta || count < 0) return INVALID_VALUE;
    /* Results that overlap: on a GPU undefined, here refused. */
    if (count > 1 && apart_c < (long long)ldc * (n - 1) + m) return INVALID_VALUE;
    if (!supported(type_a, type_b, type_c, compute)) return NOT_SUPPORTED;
    if (m == 0 || n == 0 || count == 0) return SUCCESS;
    int wide = compute == COMPUTE_64F;
    struct call call = {
        .stream = h->stream, .workspace = h->workspace, .workspace_size = h->workspace_size,
        .a = (void *)A, .b = (void *)B, .c = C,
        .alpha = wide ? *(double *)alpha : *(float *)alpha,
        .beta = wide ? *(double *)beta : *(float *)beta,
        .ta = ta, .tb = tb, .m = m, .n = n, .k = k, .lda = lda, .ldb = ldb, .ldc = ldc,
        .apart_a = apart_a, .apart_b = apart_b, .apart_c = apart_c, .count = count,
        .type_ab = type_a, .type_c = type_c, .compute = compute};
    if (recorder) return recorder(&call);
    simulator_compute(&call);
    return SUCCESS;
}

int cublasGemmEx(struct handle *h, int ta, int tb, int m, int n, int k, const void *alpha,
                 const void *A, int type_a, int lda, const void *B, int type_b, int ldb,
                 const void *beta, void *C, int type_c, int ldc, int compute, int algo) {
    return cublasGemmStridedBatchedEx(h, ta, tb, m, n, k, alpha, A, type_a, lda, 0, B, type_b, ldb,
                                      0, beta, C, type_c, ldc, 0, 1, compute, algo);
}
