/* The bodies of inlines.h. */
/* The C library hides the processor sets without it. */
#define _GNU_SOURCE

#include <sched.h>
#include <string.h>

#include "inlines.h"

#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* An lcore's number in a thread that is none. */
#define NO_LCORE UINT32_MAX

extern __thread unsigned int per_lcore__lcore_id;
extern struct own_rte_mempool_ops_table rte_mempool_ops_table;
cpu_set_t rte_lcore_cpuset(unsigned int lcore);
void rte_pktmbuf_free_bulk(struct own_rte_mbuf **mbufs, unsigned int n);
int rte_log(uint32_t level, uint32_t type, const char *format, ...);

/* Those of this thread; none if it is no lcore, or the pool has none. */
static inline struct own_rte_mempool_cache *cache_of(struct own_rte_mempool *pool)
{
    unsigned int lcore = per_lcore__lcore_id;

    if (unlikely(pool->cache_size == 0 || lcore == NO_LCORE))
        return NULL;
    return &pool->local_cache[lcore];
}

static inline int dequeue(struct own_rte_mempool *pool, void **objects, unsigned int n)
{
    return rte_mempool_ops_table.ops[pool->ops_index].dequeue(pool, objects, n);
}

static inline void enqueue(struct own_rte_mempool *pool, void *const *objects, unsigned int n)
{
    /* A pool has room for all of its objects. */
    rte_mempool_ops_table.ops[pool->ops_index].enqueue(pool, objects, n);
}

/* Hands out the last `n` objects of a cache, the newest first, which are likely to be near. */
static inline void take(struct own_rte_mempool_cache *cache, void **objects, unsigned int n)
{
    void **from = &cache->objs[cache->len];

    cache->len -= n;
    for (unsigned int i = 0; i < n; i++)
        *objects++ = *--from;
}

int kopi_mempool_get_bulk(struct own_rte_mempool *pool, void **objects, unsigned int n)
{
    struct own_rte_mempool_cache *cache = cache_of(pool);

    if (unlikely(cache == NULL))
        return dequeue(pool, objects, n);
    if (likely(n <= cache->len)) {
        take(cache, objects, n);
        return 0;
    }
    unsigned int kept = cache->len, missing = n - kept;
    take(cache, objects, kept);
    objects += kept;
    if (likely(missing <= OWN_RTE_MEMPOOL_CACHE_MAX_SIZE && dequeue(pool, cache->objs, cache->size + missing) == 0)) {
        cache->len = cache->size + missing;
        take(cache, objects, missing);
        return 0;
    }
    /* The pool is nearly empty. */
    int result = dequeue(pool, objects, missing);
    if (result != 0)
        cache->len = kept;
    return result;
}

void kopi_mempool_put_bulk(struct own_rte_mempool *pool, void *const *objects, unsigned int n)
{
    struct own_rte_mempool_cache *cache = cache_of(pool);

    if (unlikely(cache == NULL || n > cache->flushthresh)) {
        enqueue(pool, objects, n);
        return;
    }
    void **to = &cache->objs[cache->len];
    if (likely(cache->len + n <= cache->flushthresh)) {
        cache->len += n;
    } else {
        to = &cache->objs[0];
        enqueue(pool, to, cache->len);
        cache->len = n;
    }
    /* One at a time is what a call would cost most for. */
    if (n == 1)
        *to = *objects;
    else
        memcpy(to, objects, sizeof(void *) * n);
}

void kopi_pktmbuf_free(struct own_rte_mbuf *mbuf)
{
    if (mbuf != NULL)
        rte_pktmbuf_free_bulk(&mbuf, 1);
}

void kopi_pktmbuf_return_bulk(struct own_rte_mbuf **mbufs, unsigned int n)
{
    if (n == 0)
        return;
    struct own_rte_mempool *pool = mbufs[0]->pool;
    for (unsigned int i = 0; i < n; i++) {
        const struct own_rte_mbuf *m = mbufs[i];
        bool direct = (m->ol_flags & (OWN_RTE_MBUF_F_INDIRECT | OWN_RTE_MBUF_F_EXTERNAL)) == 0;
        if (m->pool != pool || m->nb_segs != 1 || !direct || __atomic_load_n(&m->refcnt, __ATOMIC_RELAXED) != 1) {
            rte_pktmbuf_free_bulk(mbufs, n);
            return;
        }
    }
    kopi_mempool_put_bulk(pool, (void *const *)mbufs, n);
}

/* Behind the pool and its caches. */
static const struct own_rte_pktmbuf_pool_private *private_of(const struct own_rte_mempool *pool)
{
    size_t caches = pool->cache_size == 0 ? 0 : sizeof(struct own_rte_mempool_cache) * OWN_RTE_MAX_LCORE;

    return (const void *)((const char *)pool + sizeof(*pool) + caches);
}

uint16_t kopi_pktmbuf_data_room_size(const struct own_rte_mempool *pool)
{
    return private_of(pool)->mbuf_data_room_size;
}

bool kopi_pktmbuf_pool_known(const struct own_rte_mempool *pool)
{
    const struct own_rte_pktmbuf_pool_private *private = private_of(pool);
    uint32_t room = private->mbuf_data_room_size;
    uint32_t inside = kopi_pktmbuf_pool_pinned(pool) ? 0 : room;

    return pool->private_data_size >= sizeof(*private) && room > 0
        && pool->elt_size >= sizeof(struct own_rte_mbuf) + private->mbuf_priv_size + inside;
}

bool kopi_pktmbuf_pool_pinned(const struct own_rte_mempool *pool)
{
    return (private_of(pool)->flags & OWN_RTE_PKTMBUF_POOL_F_PINNED_EXT_BUF) != 0;
}

bool kopi_lcore_has_cpu(unsigned int lcore, unsigned int cpu)
{
    cpu_set_t set = rte_lcore_cpuset(lcore);

    return cpu < CPU_SETSIZE && CPU_ISSET(cpu, &set);
}

void kopi_memseg_list_get(const struct own_rte_memseg_list *list, struct kopi_memory *memory)
{
    memory->start = list->base_va;
    memory->length = list->len;
    memory->page = list->page_sz;
    memory->external = list->external != 0;
    memory->fixed = false;
}

void kopi_memseg_get(const struct own_rte_memseg_list *list, const struct own_rte_memseg *segment,
                     struct kopi_memory *memory)
{
    memory->start = segment->addr;
    memory->length = segment->len;
    memory->page = segment->hugepage_sz;
    memory->external = list->external != 0;
    memory->fixed = (segment->flags & OWN_RTE_MEMSEG_FLAG_DO_NOT_FREE) != 0;
}

int kopi_eth_linkstatus_set(struct own_rte_eth_dev *dev, const struct kopi_link *link)
{
    union {
        uint64_t word;
        struct own_rte_eth_link link;
    } old, new = { .word = 0 };

    new.link.link_speed = link->speed_mbps;
    new.link.link_duplex = link->full_duplex;
    new.link.link_autoneg = link->autoneg;
    new.link.link_status = link->up;
    old.word = __atomic_exchange_n((uint64_t *)&dev->data->dev_link, new.word, __ATOMIC_SEQ_CST);
    return old.link.link_status == new.link.link_status ? -1 : 0;
}

struct own_rte_device *kopi_vdev_to_device(struct own_rte_vdev_device *dev)
{
    return (struct own_rte_device *)&dev->device;
}

static const struct own_rte_device *device_of(const struct own_rte_vdev_device *dev)
{
    return (const struct own_rte_device *)&dev->device;
}

void kopi_eth_vdev_bind(struct own_rte_eth_dev *port, struct own_rte_vdev_device *dev)
{
    port->device = kopi_vdev_to_device(dev);
    port->intr_handle = NULL;
    port->data->numa_node = rte_dev_numa_node(device_of(dev));
}

const char *kopi_vdev_device_name(const struct own_rte_vdev_device *dev)
{
    return rte_dev_name(device_of(dev));
}

const char *kopi_vdev_device_args(const struct own_rte_vdev_device *dev)
{
    const struct own_rte_devargs *args = rte_dev_devargs(device_of(dev));

    return args == NULL ? NULL : args->args;
}

void kopi_log(uint32_t level, uint32_t type, const char *text, uint32_t len)
{
    rte_log(level, type, "%.*s\n", (int)len, text);
}
