/* What DPDK has as inline functions and macros, written by the driver's own declarations. Each does what the DPDK function
 * of the same name does, without more checks. The cost is one call; the burst functions pay it once per burst. */
#ifndef KOPI_INLINES_H
#define KOPI_INLINES_H

#include "functions.h"

/* What struct rte_eth_link holds. */
struct kopi_link {
    uint32_t speed_mbps;
    bool full_duplex;
    bool autoneg;
    bool up;
};

/* EAL's memory: where a list of segments lies, in pages of which size, and whether it is EAL's own; and one segment, and
 * whether that stays for good. */
struct kopi_memory {
    void *start;
    size_t length;
    uint64_t page;
    bool external;
    bool fixed;
};

/* Packet buffers and pools. */
int kopi_mempool_get_bulk(struct own_rte_mempool *pool, void **objects, unsigned int n);
void kopi_mempool_put_bulk(struct own_rte_mempool *pool, void *const *objects, unsigned int n);
void kopi_pktmbuf_free(struct own_rte_mbuf *mbuf);
/* Plain buffers of one pool go back at once, without a look at their second cache line; any others one by one. */
void kopi_pktmbuf_return_bulk(struct own_rte_mbuf **mbufs, unsigned int n);
/* Whether a pool of packet buffers lies in memory as declared: its elements have room for what they are said to consist of. */
bool kopi_pktmbuf_pool_known(const struct own_rte_mempool *pool);
uint16_t kopi_pktmbuf_data_room_size(const struct own_rte_mempool *pool);
/* Whether the buffers of this pool lie in external memory to which they are bound for ever. */
bool kopi_pktmbuf_pool_pinned(const struct own_rte_mempool *pool);

/* EAL. Whether an lcore that is enabled may run on processor `cpu`. */
bool kopi_lcore_has_cpu(unsigned int lcore, unsigned int cpu);
void kopi_memseg_list_get(const struct own_rte_memseg_list *list, struct kopi_memory *memory);
void kopi_memseg_get(const struct own_rte_memseg_list *list, const struct own_rte_memseg *segment,
                     struct kopi_memory *memory);

/* Returns 0 if the link went up or down by it, -1 if not. */
int kopi_eth_linkstatus_set(struct own_rte_eth_dev *dev, const struct kopi_link *link);

/* Virtual devices. The names and the arguments live as long as the device; the port, which is new, becomes that of the
 * device. */
void kopi_eth_vdev_bind(struct own_rte_eth_dev *port, struct own_rte_vdev_device *dev);
const char *kopi_vdev_device_name(const struct own_rte_vdev_device *dev);
const char *kopi_vdev_device_args(const struct own_rte_vdev_device *dev);
struct own_rte_device *kopi_vdev_to_device(struct own_rte_vdev_device *dev);

/* One line in DPDK's log, if `type` is at `level`. The text needs no terminating zero. */
void kopi_log(uint32_t level, uint32_t type, const char *text, uint32_t len);

#endif
