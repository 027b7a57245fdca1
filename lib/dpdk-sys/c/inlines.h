/* DPDK's inline functions and macros as ordinary functions, which Rust can call. Each does what the DPDK function of
 * the same name does, without more checks. The cost is one call; the burst functions pay it once per burst. */
#ifndef KOPI_INLINES_H
#define KOPI_INLINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rte_device;
struct rte_eth_dev;
struct rte_mbuf;
struct rte_mbuf_ext_shared_info;
struct rte_mempool;
struct rte_memseg;
struct rte_memseg_list;
struct rte_vdev_device;

/* What struct rte_eth_link holds; its own fields lie in an anonymous union from DPDK 24.11 on. */
struct kopi_link {
    uint32_t speed_mbps;
    bool full_duplex;
    bool autoneg;
    bool up;
};

/* Burst functions, packet buffers, pools. */
uint16_t kopi_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
uint16_t kopi_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
/* The descriptor of a queue's receive interrupt, or -1, without DPDK's word about it in the log. */
int kopi_eth_rx_intr_fd(uint16_t port, uint16_t queue);
int kopi_eth_rx_queue_count(uint16_t port, uint16_t queue);
int kopi_eth_rx_descriptor_status(uint16_t port, uint16_t queue, uint16_t offset);
int kopi_eth_tx_descriptor_status(uint16_t port, uint16_t queue, uint16_t offset);

struct rte_mbuf *kopi_pktmbuf_alloc(struct rte_mempool *pool);
int kopi_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n);
void kopi_pktmbuf_return_bulk(struct rte_mbuf **mbufs, unsigned int n);
struct rte_mbuf *kopi_mbuf_raw_alloc(struct rte_mempool *pool);
void kopi_mbuf_raw_free(struct rte_mbuf *mbuf);
void kopi_pktmbuf_free(struct rte_mbuf *mbuf);
void kopi_pktmbuf_free_seg(struct rte_mbuf *mbuf);
struct rte_mbuf *kopi_pktmbuf_prefree_seg(struct rte_mbuf *mbuf);
void kopi_pktmbuf_reset(struct rte_mbuf *mbuf);
int kopi_pktmbuf_linearize(struct rte_mbuf *mbuf);
int kopi_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);
void kopi_pktmbuf_attach(struct rte_mbuf *indirect, struct rte_mbuf *direct);
void kopi_pktmbuf_attach_extbuf(struct rte_mbuf *mbuf, void *addr, uint64_t iova, uint16_t len,
                                struct rte_mbuf_ext_shared_info *shared);
uint16_t kopi_pktmbuf_data_room_size(struct rte_mempool *pool);
uint16_t kopi_pktmbuf_priv_size(struct rte_mempool *pool);
/* Whether the buffers of this pool lie in external memory to which they are bound for ever. */
bool kopi_pktmbuf_pool_pinned(struct rte_mempool *pool);

/* The reference count of an mbuf may be shared between threads, so it is only touched through these. */
uint16_t kopi_mbuf_refcnt_read(const struct rte_mbuf *mbuf);
void kopi_mbuf_refcnt_set(struct rte_mbuf *mbuf, uint16_t value);
uint16_t kopi_mbuf_refcnt_update(struct rte_mbuf *mbuf, int16_t delta);

int kopi_mempool_get_bulk(struct rte_mempool *pool, void **objects, unsigned int n);
void kopi_mempool_put_bulk(struct rte_mempool *pool, void *const *objects, unsigned int n);

/* EAL. kopi_errno is the rte_errno of this thread. */
int kopi_errno(void);
unsigned int kopi_lcore_id(void);
/* Whether an lcore that is enabled may run on processor `cpu`. */
bool kopi_lcore_has_cpu(unsigned int lcore, unsigned int cpu);
uint64_t kopi_rdtsc(void);

/* EAL's memory: where a list of segments lies, in pages of which size, and whether it is EAL's own; and one segment, and
 * whether that stays for good. */
struct kopi_memory {
    void *start;
    size_t length;
    uint64_t page;
    bool external;
    bool fixed;
};
void kopi_memseg_list_get(const struct rte_memseg_list *list, struct kopi_memory *memory);
void kopi_memseg_get(const struct rte_memseg_list *list, const struct rte_memseg *segment, struct kopi_memory *memory);

/* Links. kopi_eth_link_get never waits for the device; get and set of the driver side work on rte_eth_dev_data. Set
 * returns 0 if the link went up or down by it, -1 if not. */
int kopi_eth_link_get(uint16_t port, struct kopi_link *link);
int kopi_eth_linkstatus_set(struct rte_eth_dev *dev, const struct kopi_link *link);
void kopi_eth_linkstatus_get(const struct rte_eth_dev *dev, struct kopi_link *link);

/* Virtual devices: the driver side. The names and the arguments live as long as the device. */
struct rte_eth_dev *kopi_eth_vdev_allocate(struct rte_vdev_device *dev, size_t private_size);
const char *kopi_vdev_device_name(const struct rte_vdev_device *dev);
const char *kopi_vdev_device_args(const struct rte_vdev_device *dev);
struct rte_device *kopi_vdev_to_device(struct rte_vdev_device *dev);
struct rte_vdev_device *kopi_device_to_vdev(struct rte_device *dev);

/* One line in DPDK's log, if `type` is at `level`. The text needs no terminating zero. */
void kopi_log(uint32_t level, uint32_t type, const char *text, uint32_t len);

#endif
