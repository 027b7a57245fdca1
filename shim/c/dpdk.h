/* What the driver knows of DPDK: the fields and constants that it touches, as they are in release KOPI_RELEASE (year and
 * month, 2411 for 24.11). The driver is compiled by these alone, so that one machine builds it for all releases; check.c
 * compares them with DPDK's own headers wherever there are any.
 *
 * A structure has DPDK's name with `own_` before it, which build.rs takes off for Rust; constants likewise, `OWN_`. One
 * that the driver only gets pointers to ends behind the last field that it touches. */
#ifndef KOPI_DPDK_H
#define KOPI_DPDK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef KOPI_RELEASE
#error "KOPI_RELEASE is not defined"
#endif

/* Constants. check.c has a line for each. */

enum {
    OWN_RTE_PKTMBUF_HEADROOM = 128,
    OWN_RTE_ETH_NUM_RECEIVE_MAC_ADDR = 128,
    OWN_RTE_ETH_NAME_MAX_LEN = 64,
    OWN_RTE_ETH_XSTATS_NAME_SIZE = 64,
    OWN_RTE_ETH_BURST_MODE_INFO_SIZE = 1024,
    OWN_RTE_ETHDEV_QUEUE_STAT_CNTRS = 16,
    OWN_RTE_MAX_QUEUES_PER_PORT = 1024,
    OWN_RTE_MAX_ETHPORTS = 32,
    OWN_RTE_MAX_LCORE = 128,
    OWN_RTE_ETHER_MTU = 1500,
    OWN_RTE_MEMSEG_FLAG_DO_NOT_FREE = 1,
    OWN_RTE_MEMPOOL_NAMESIZE = 26,
    OWN_RTE_MEMPOOL_CACHE_MAX_SIZE = 512,
    OWN_RTE_MEMPOOL_OPS_NAMESIZE = 32,
    OWN_RTE_MEMPOOL_MAX_OPS_IDX = 16,
    OWN_RTE_DEV_NAME_MAX_LEN = 64,
    OWN_RTE_PKTMBUF_POOL_F_PINNED_EXT_BUF = 1,
    OWN_RTE_ETH_RETA_GROUP_SIZE = 64,

    OWN_RTE_ETH_QUEUE_STATE_STOPPED = 0,
    OWN_RTE_ETH_QUEUE_STATE_STARTED = 1,
    OWN_RTE_ETH_RX_DESC_AVAIL = 0,
    OWN_RTE_ETH_RX_DESC_DONE = 1,
    OWN_RTE_ETH_TX_DESC_FULL = 0,
    OWN_RTE_ETH_TX_DESC_DONE = 1,

    OWN_RTE_ETH_VLAN_STRIP_MASK = 0x1,

    OWN_RTE_ETH_EVENT_INTR_LSC = 1,
    OWN_RTE_ETH_MQ_RX_NONE = 0,
    OWN_RTE_ETH_MQ_RX_RSS = 1,
    OWN_RTE_ETH_MQ_RX_DCB_RSS = 3,
    OWN_RTE_ETH_MQ_RX_VMDQ_ONLY = 4,
    OWN_RTE_ETH_HASH_FUNCTION_DEFAULT = 0,
    OWN_RTE_ETH_HASH_FUNCTION_TOEPLITZ = 1,
    OWN_RTE_ETH_MQ_TX_NONE = 0,
    OWN_RTE_ETH_MQ_TX_DCB = 1,
    OWN_RTE_ETH_DEV_INTR_LSC = 0x2,
    OWN_RTE_ETH_DEV_AUTOFILL_QUEUE_XSTATS = 0x40,

    OWN_RTE_ETH_LINK_SPEED_FIXED = 1 << 0,
    OWN_RTE_ETH_LINK_SPEED_1G = 1 << 5,
    OWN_RTE_ETH_LINK_SPEED_10G = 1 << 8,
    OWN_RTE_ETH_LINK_SPEED_25G = 1 << 10,
    OWN_RTE_ETH_LINK_SPEED_40G = 1 << 11,
    OWN_RTE_ETH_LINK_SPEED_50G = 1 << 12,
    OWN_RTE_ETH_LINK_SPEED_100G = 1 << 14,
    OWN_RTE_ETH_LINK_SPEED_200G = 1 << 15,

    OWN_RTE_PROC_PRIMARY = 0,
    OWN_RTE_LOG_ERR = 4,
    OWN_RTE_LOG_WARNING = 5,
    OWN_RTE_LOG_NOTICE = 6,
    OWN_RTE_LOGTYPE_EAL = 0,
    OWN_RTE_MEM_EVENT_FREE = 1,
    OWN_RTE_INTR_VEC_RXTX_OFFSET = 1,
    OWN_RTE_INTR_INSTANCE_F_PRIVATE = 0,
    OWN_RTE_INTR_HANDLE_VDEV = 8,

    OWN_RTE_PTYPE_L2_ETHER = 0x1,
    OWN_RTE_PTYPE_L2_ETHER_ARP = 0x3,
    OWN_RTE_PTYPE_L2_ETHER_VLAN = 0x6,
    OWN_RTE_PTYPE_L2_ETHER_QINQ = 0x7,
    OWN_RTE_PTYPE_L3_IPV4 = 0x10,
    OWN_RTE_PTYPE_L3_IPV4_EXT = 0x30,
    OWN_RTE_PTYPE_L3_IPV6 = 0x40,
    OWN_RTE_PTYPE_L3_IPV6_EXT = 0xc0,
    OWN_RTE_PTYPE_L4_TCP = 0x100,
    OWN_RTE_PTYPE_L4_UDP = 0x200,
    OWN_RTE_PTYPE_L4_FRAG = 0x300,
    OWN_RTE_PTYPE_L4_SCTP = 0x400,
    OWN_RTE_PTYPE_L4_ICMP = 0x500,
    OWN_RTE_PTYPE_L4_NONFRAG = 0x600,

    OWN_RTE_FLOW_ITEM_TYPE_END = 0,
    OWN_RTE_FLOW_ITEM_TYPE_VOID = 1,
    OWN_RTE_FLOW_ITEM_TYPE_ETH = 6,
    OWN_RTE_FLOW_ITEM_TYPE_VLAN = 7,
    OWN_RTE_FLOW_ITEM_TYPE_IPV4 = 8,
    OWN_RTE_FLOW_ITEM_TYPE_IPV6 = 9,
    OWN_RTE_FLOW_ITEM_TYPE_ICMP = 10,
    OWN_RTE_FLOW_ITEM_TYPE_UDP = 11,
    OWN_RTE_FLOW_ITEM_TYPE_TCP = 12,
    OWN_RTE_FLOW_ITEM_TYPE_ICMP6 = 28,

    OWN_RTE_FLOW_ACTION_TYPE_END = 0,
    OWN_RTE_FLOW_ACTION_TYPE_VOID = 1,
    OWN_RTE_FLOW_ACTION_TYPE_PASSTHRU = 2,
    OWN_RTE_FLOW_ACTION_TYPE_MARK = 4,
    OWN_RTE_FLOW_ACTION_TYPE_FLAG = 5,
    OWN_RTE_FLOW_ACTION_TYPE_QUEUE = 6,
    OWN_RTE_FLOW_ACTION_TYPE_DROP = 7,
    OWN_RTE_FLOW_ACTION_TYPE_COUNT = 8,
    OWN_RTE_FLOW_ACTION_TYPE_RSS = 9,

    OWN_RTE_FLOW_ERROR_TYPE_UNSPECIFIED = 1,
    OWN_RTE_FLOW_ERROR_TYPE_HANDLE = 2,
    OWN_RTE_FLOW_ERROR_TYPE_ATTR_GROUP = 3,
    OWN_RTE_FLOW_ERROR_TYPE_ATTR_INGRESS = 5,
    OWN_RTE_FLOW_ERROR_TYPE_ATTR_EGRESS = 6,
    OWN_RTE_FLOW_ERROR_TYPE_ATTR_TRANSFER = 7,
    OWN_RTE_FLOW_ERROR_TYPE_ATTR = 8,
    OWN_RTE_FLOW_ERROR_TYPE_ITEM_NUM = 9,
    OWN_RTE_FLOW_ERROR_TYPE_ITEM_SPEC = 10,
    OWN_RTE_FLOW_ERROR_TYPE_ITEM_LAST = 11,
    OWN_RTE_FLOW_ERROR_TYPE_ITEM_MASK = 12,
    OWN_RTE_FLOW_ERROR_TYPE_ITEM = 13,
    OWN_RTE_FLOW_ERROR_TYPE_ACTION_NUM = 14,
    OWN_RTE_FLOW_ERROR_TYPE_ACTION_CONF = 15,
    OWN_RTE_FLOW_ERROR_TYPE_ACTION = 16,
};

enum { OWN_RTE_ETH_SPEED_NUM_UNKNOWN = UINT32_MAX };

#define BIT(n) ((uint64_t)1 << (n))
enum {
    OWN_RTE_ETH_RX_OFFLOAD_VLAN_STRIP = BIT(0),
    OWN_RTE_ETH_RX_OFFLOAD_IPV4_CKSUM = BIT(1),
    OWN_RTE_ETH_RX_OFFLOAD_UDP_CKSUM = BIT(2),
    OWN_RTE_ETH_RX_OFFLOAD_TCP_CKSUM = BIT(3),
    OWN_RTE_ETH_RX_OFFLOAD_SCATTER = BIT(13),
    OWN_RTE_ETH_RX_OFFLOAD_TIMESTAMP = BIT(14),
    OWN_RTE_ETH_RX_OFFLOAD_SCTP_CKSUM = BIT(17),
    OWN_RTE_ETH_RX_OFFLOAD_RSS_HASH = BIT(19),
    OWN_RTE_ETH_TX_OFFLOAD_VLAN_INSERT = BIT(0),
    OWN_RTE_ETH_TX_OFFLOAD_IPV4_CKSUM = BIT(1),
    OWN_RTE_ETH_TX_OFFLOAD_UDP_CKSUM = BIT(2),
    OWN_RTE_ETH_TX_OFFLOAD_TCP_CKSUM = BIT(3),
    OWN_RTE_ETH_TX_OFFLOAD_SCTP_CKSUM = BIT(4),
    OWN_RTE_ETH_TX_OFFLOAD_TCP_TSO = BIT(5),
    OWN_RTE_ETH_TX_OFFLOAD_QINQ_INSERT = BIT(8),
    OWN_RTE_ETH_TX_OFFLOAD_MULTI_SEGS = BIT(15),
    OWN_RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE = BIT(16),
    OWN_RTE_ETH_RSS_IP = BIT(2) | BIT(3) | BIT(7) | BIT(8) | BIT(9) | BIT(13) | BIT(15),
    OWN_RTE_ETH_RSS_TCP = BIT(4) | BIT(10) | BIT(16),
    OWN_RTE_ETH_RSS_UDP = BIT(5) | BIT(11) | BIT(17),
    OWN_RTE_ETH_RSS_SCTP = BIT(6) | BIT(12),
    OWN_RTE_MBUF_F_RX_VLAN = BIT(0),
    OWN_RTE_MBUF_F_RX_RSS_HASH = BIT(1),
    OWN_RTE_MBUF_F_RX_FDIR = BIT(2),
    OWN_RTE_MBUF_F_RX_FDIR_ID = BIT(13),
    OWN_RTE_MBUF_F_RX_L4_CKSUM_BAD = BIT(3),
    OWN_RTE_MBUF_F_RX_IP_CKSUM_BAD = BIT(4),
    OWN_RTE_MBUF_F_RX_VLAN_STRIPPED = BIT(6),
    OWN_RTE_MBUF_F_RX_IP_CKSUM_GOOD = BIT(7),
    OWN_RTE_MBUF_F_RX_L4_CKSUM_GOOD = BIT(8),
    OWN_RTE_MBUF_F_TX_QINQ = BIT(49),
    OWN_RTE_MBUF_F_TX_TCP_SEG = BIT(50),
    OWN_RTE_MBUF_F_TX_TCP_CKSUM = BIT(52),
    OWN_RTE_MBUF_F_TX_SCTP_CKSUM = BIT(53),
    OWN_RTE_MBUF_F_TX_UDP_CKSUM = BIT(52) | BIT(53),
    OWN_RTE_MBUF_F_TX_L4_MASK = BIT(52) | BIT(53),
    OWN_RTE_MBUF_F_TX_IP_CKSUM = BIT(54),
    OWN_RTE_MBUF_F_TX_VLAN = BIT(57),
    OWN_RTE_MBUF_F_EXTERNAL = BIT(61),
    OWN_RTE_MBUF_F_INDIRECT = BIT(62),
};

#define CACHE_LINE __attribute__((aligned(64)))

/* Only pointers to these pass through the driver. */
struct own_rte_device;
struct own_rte_intr_handle;
struct own_rte_memzone;

/* Packet buffers and their pools. */

struct own_rte_mempool {
    char name[OWN_RTE_MEMPOOL_NAMESIZE];
    void *pool_data;
    void *pool_config;
    const struct own_rte_memzone *mz;
    unsigned int flags;
    int socket_id;
    uint32_t size;
    uint32_t cache_size;
    uint32_t elt_size;
    uint32_t header_size;
    uint32_t trailer_size;
    unsigned int private_data_size;
    int32_t ops_index;
    struct own_rte_mempool_cache *local_cache;
    uint32_t populated_size;
    void *elt_list[2];
    uint32_t nb_mem_chunks;
    void *mem_list[2];
} CACHE_LINE;

struct own_rte_mempool_cache {
    uint32_t size;
    uint32_t flushthresh;
    uint32_t len;
    void *objs[OWN_RTE_MEMPOOL_CACHE_MAX_SIZE * 2] CACHE_LINE;
} CACHE_LINE;

struct own_rte_mempool_ops {
    char name[OWN_RTE_MEMPOOL_OPS_NAMESIZE];
    void *alloc;
    void *free;
    int (*enqueue)(struct own_rte_mempool *pool, void *const *objects, unsigned int n);
    int (*dequeue)(struct own_rte_mempool *pool, void **objects, unsigned int n);
    void *others[5];
} CACHE_LINE;

struct own_rte_mempool_ops_table {
    int lock;
    uint32_t num_ops;
    struct own_rte_mempool_ops ops[OWN_RTE_MEMPOOL_MAX_OPS_IDX];
} CACHE_LINE;

struct own_rte_pktmbuf_pool_private {
    uint16_t mbuf_data_room_size;
    uint16_t mbuf_priv_size;
    uint32_t flags;
};

struct own_rte_mbuf_ext_shared_info {
    void (*free_cb)(void *address, void *opaque);
    void *fcb_opaque;
    uint16_t refcnt;
};

/* One segment of a packet: two cache lines. The data lies at `buf_addr + data_off`. DPDK's field names change from release
 * to release, their places do not. */
struct own_rte_mbuf {
    void *buf_addr;
    uint64_t buf_iova;
    uint16_t data_off;
    uint16_t refcnt;
    uint16_t nb_segs;
    uint16_t port;
    uint64_t ol_flags;
    uint32_t packet_type;
    uint32_t pkt_len;
    uint16_t data_len;
    uint16_t vlan_tci;
    uint32_t hash[2];
    uint16_t vlan_tci_outer;
    uint16_t buf_len;
    struct own_rte_mempool *pool;
    struct own_rte_mbuf *next;
    uint64_t tx_offload;
    struct own_rte_mbuf_ext_shared_info *shinfo;
    uint16_t priv_size;
    uint16_t timesync;
    uint32_t dynfield1[9];
} CACHE_LINE;

/* EAL's memory. */

struct own_rte_memseg {
    uint64_t iova;
    void *addr;
    size_t len;
    uint64_t hugepage_sz;
    int32_t socket_id;
    uint32_t nchannel;
    uint32_t nrank;
    uint32_t flags;
};

struct own_rte_memseg_list {
    void *base_va;
    uint64_t page_sz;
    int socket_id;
    uint32_t version;
    size_t len;
    unsigned int external;
};

/* Virtual devices. */

struct own_rte_driver {
    void *next[2];
    const char *name;
    const char *alias;
};

struct own_rte_devargs {
    void *next[2];
    int type;
    int policy;
    char name[OWN_RTE_DEV_NAME_MAX_LEN];
    const char *args;
};

struct own_rte_vdev_device {
    void *next[2];
    /* Where struct rte_device begins. */
    void *device[1];
};

struct own_rte_vdev_driver {
    void *next[2];
    struct own_rte_driver driver;
    int (*probe)(struct own_rte_vdev_device *dev);
    int (*remove)(struct own_rte_vdev_device *dev);
    void *dma_map;
    void *dma_unmap;
    uint32_t drv_flags;
};

/* Ports: what passes between application and driver. */

struct own_rte_ether_addr {
    uint8_t addr_bytes[6];
} __attribute__((aligned(2)));

struct own_rte_eth_link {
    uint32_t link_speed;
    uint16_t link_duplex : 1;
    uint16_t link_autoneg : 1;
    uint16_t link_status : 1;
} __attribute__((aligned(8)));

struct own_rte_eth_rss_conf {
    uint8_t *rss_key;
    uint8_t rss_key_len;
    uint64_t rss_hf;
#if KOPI_RELEASE >= 2311
    int algorithm;
#endif
};

struct own_rte_eth_rss_reta_entry64 {
    uint64_t mask;
    uint16_t reta[OWN_RTE_ETH_RETA_GROUP_SIZE];
};

struct own_rte_eth_rxmode {
    uint32_t mq_mode;
    uint32_t mtu;
    uint32_t max_lro_pkt_size;
    uint64_t offloads;
    uint64_t reserved[4];
};

struct own_rte_eth_txmode {
    uint32_t mq_mode;
    uint64_t offloads;
    uint16_t pvid;
    uint8_t hw_vlan;
    uint64_t reserved[4];
};

struct own_rte_eth_intr_conf {
    uint32_t lsc : 1;
    uint32_t rxq : 1;
    uint32_t rmv : 1;
};

struct own_rte_eth_conf {
    uint32_t link_speeds;
    struct own_rte_eth_rxmode rxmode;
    struct own_rte_eth_txmode txmode;
    uint32_t lpbk_mode;
    struct {
        struct own_rte_eth_rss_conf rss_conf;
        /* Of VMDq and DCB. */
        uint64_t others[262];
    } rx_adv_conf;
    uint32_t tx_adv_conf[3];
    uint32_t dcb_capability_en;
    struct own_rte_eth_intr_conf intr_conf;
};

struct own_rte_eth_rxconf {
    uint8_t rx_thresh[3];
    uint16_t rx_free_thresh;
    uint8_t rx_drop_en;
    uint8_t rx_deferred_start;
    uint16_t rx_nseg;
    uint16_t share_group;
    uint16_t share_qid;
    uint64_t offloads;
    void *rx_seg;
    struct own_rte_mempool **rx_mempools;
    uint16_t rx_nmempool;
    uint64_t reserved[4];
};

struct own_rte_eth_txconf {
    uint8_t tx_thresh[3];
    uint16_t tx_rs_thresh;
    uint16_t tx_free_thresh;
    uint8_t tx_deferred_start;
    uint64_t offloads;
    uint64_t reserved[4];
};

struct own_rte_eth_rxq_info {
    struct own_rte_mempool *mp;
    struct own_rte_eth_rxconf conf;
    uint8_t scattered_rx;
    uint8_t queue_state;
    uint16_t nb_desc;
    uint16_t rx_buf_size;
};

struct own_rte_eth_txq_info {
    struct own_rte_eth_txconf conf;
    uint16_t nb_desc;
};

struct own_rte_eth_burst_mode {
    uint64_t flags;
    char info[OWN_RTE_ETH_BURST_MODE_INFO_SIZE];
};

struct own_rte_eth_desc_lim {
    uint16_t nb_max;
    uint16_t nb_min;
    uint16_t nb_align;
    uint16_t nb_seg_max;
    uint16_t nb_mtu_seg_max;
};

struct own_rte_eth_dev_portconf {
    uint16_t burst_size;
    uint16_t ring_size;
    uint16_t nb_queues;
};

struct own_rte_eth_dev_info {
    struct own_rte_device *device;
    const char *driver_name;
    unsigned int if_index;
    uint16_t min_mtu;
    uint16_t max_mtu;
    const uint32_t *dev_flags;
    uint32_t min_rx_bufsize;
#if KOPI_RELEASE >= 2311
    uint32_t max_rx_bufsize;
#endif
    uint32_t max_rx_pktlen;
    uint32_t max_lro_pkt_size;
    uint16_t max_rx_queues;
    uint16_t max_tx_queues;
    uint32_t max_mac_addrs;
    uint32_t max_hash_mac_addrs;
    uint16_t max_vfs;
    uint16_t max_vmdq_pools;
    uint32_t rx_seg_capa[2];
    uint64_t rx_offload_capa;
    uint64_t tx_offload_capa;
    uint64_t rx_queue_offload_capa;
    uint64_t tx_queue_offload_capa;
    uint16_t reta_size;
    uint8_t hash_key_size;
#if KOPI_RELEASE >= 2311
    uint32_t rss_algo_capa;
#endif
    uint64_t flow_type_rss_offloads;
    struct own_rte_eth_rxconf default_rxconf;
    struct own_rte_eth_txconf default_txconf;
    uint16_t vmdq_queue_base;
    uint16_t vmdq_queue_num;
    uint16_t vmdq_pool_base;
    struct own_rte_eth_desc_lim rx_desc_lim;
    struct own_rte_eth_desc_lim tx_desc_lim;
    uint32_t speed_capa;
    uint16_t nb_rx_queues;
    uint16_t nb_tx_queues;
    uint16_t max_rx_mempools;
    struct own_rte_eth_dev_portconf default_rxportconf;
    struct own_rte_eth_dev_portconf default_txportconf;
};

#define QUEUE_STATS                                       \
    uint64_t q_ipackets[OWN_RTE_ETHDEV_QUEUE_STAT_CNTRS]; \
    uint64_t q_opackets[OWN_RTE_ETHDEV_QUEUE_STAT_CNTRS]; \
    uint64_t q_ibytes[OWN_RTE_ETHDEV_QUEUE_STAT_CNTRS];   \
    uint64_t q_obytes[OWN_RTE_ETHDEV_QUEUE_STAT_CNTRS];   \
    uint64_t q_errors[OWN_RTE_ETHDEV_QUEUE_STAT_CNTRS];

struct own_rte_eth_stats {
    uint64_t ipackets;
    uint64_t opackets;
    uint64_t ibytes;
    uint64_t obytes;
    uint64_t imissed;
    uint64_t ierrors;
    uint64_t oerrors;
    uint64_t rx_nombuf;
#if KOPI_RELEASE < 2511
    QUEUE_STATS
#endif
};

#if KOPI_RELEASE >= 2511
struct own_eth_queue_stats {
    QUEUE_STATS
};
#endif

struct own_rte_eth_xstat {
    uint64_t id;
    uint64_t value;
};

struct own_rte_eth_xstat_name {
    char name[OWN_RTE_ETH_XSTATS_NAME_SIZE];
};

/* Ports: what ethdev keeps of one, shared between processes, and in each of them. */

struct own_rte_eth_dev_data {
    char name[OWN_RTE_ETH_NAME_MAX_LEN];
    void **rx_queues;
    void **tx_queues;
    uint16_t nb_rx_queues;
    uint16_t nb_tx_queues;
    uint16_t sriov[3];
    void *dev_private;
    struct own_rte_eth_link dev_link;
    struct own_rte_eth_conf dev_conf;
    uint16_t mtu;
    uint32_t min_rx_buf_size;
    uint64_t rx_mbuf_alloc_failed;
    struct own_rte_ether_addr *mac_addrs;
    uint64_t mac_pool_sel[OWN_RTE_ETH_NUM_RECEIVE_MAC_ADDR];
    struct own_rte_ether_addr *hash_mac_addrs;
    uint16_t port_id;
    uint8_t promiscuous : 1;
    uint8_t scattered_rx : 1;
    uint8_t all_multicast : 1;
    uint8_t dev_started : 1;
    uint8_t rx_queue_state[OWN_RTE_MAX_QUEUES_PER_PORT];
    uint8_t tx_queue_state[OWN_RTE_MAX_QUEUES_PER_PORT];
    uint32_t dev_flags;
    int numa_node;
    uint64_t vlan_filter_conf[64];
    uint64_t owner_id;
    char owner_name[64];
    uint16_t representor_id;
    uint16_t backer_port_id;
};

typedef uint16_t (*own_eth_burst_t)(void *queue, struct own_rte_mbuf **packets, uint16_t n);
typedef int (*own_eth_descriptor_status_t)(void *queue, uint16_t offset);

struct own_rte_eth_dev {
    own_eth_burst_t rx_pkt_burst;
    own_eth_burst_t tx_pkt_burst;
    own_eth_burst_t tx_pkt_prepare;
    /* Unsigned before 25.11, and never negative here. */
    int (*rx_queue_count)(void *queue);
    own_eth_descriptor_status_t rx_descriptor_status;
#if KOPI_RELEASE >= 2411
    void *tx_queue_count;
#endif
    own_eth_descriptor_status_t tx_descriptor_status;
#if KOPI_RELEASE >= 2311
    void *recycle_tx_mbufs_reuse;
    void *recycle_rx_descriptors_refill;
#endif
    struct own_rte_eth_dev_data *data;
    void *process_private;
    const struct own_eth_dev_ops *dev_ops;
#if KOPI_RELEASE >= 2411
    void *flow_fp_ops;
#endif
    struct own_rte_device *device;
    struct own_rte_intr_handle *intr_handle;
};

/* An operation that the driver does not have. */
typedef void (*own_none)(void);

/* Flow rules. A structure with bit fields has them as the bits of a number, which tests.c compares. */

struct own_rte_flow;

struct own_rte_flow_attr {
    uint32_t group;
    uint32_t priority;
    /* From bit 0 on: ingress, egress, transfer. */
    uint32_t flags;
};

struct own_rte_flow_item {
    uint32_t type;
    const void *spec;
    const void *last;
    const void *mask;
};

struct own_rte_flow_action {
    uint32_t type;
    const void *conf;
};

struct own_rte_flow_error {
    uint32_t type;
    const void *cause;
    const char *message;
};

/* Items: headers as they are on the wire. */

struct own_rte_flow_item_eth {
    uint8_t hdr[14];
    /* In bit 0: has_vlan. */
    uint8_t flags;
    uint32_t reserved;
};

struct own_rte_flow_item_vlan {
    uint8_t hdr[4];
    /* In bit 0: has_more_vlan. */
    uint8_t flags;
    uint8_t reserved[3];
};

struct own_rte_flow_item_ipv4 {
    uint8_t hdr[20];
};

struct own_rte_flow_item_ipv6 {
    uint8_t hdr[40];
    /* Extension headers that there are. */
    uint8_t extensions[4];
};

struct own_rte_flow_item_tcp {
    uint8_t hdr[20];
};

struct own_rte_flow_item_udp {
    uint8_t hdr[8];
};

struct own_rte_flow_item_icmp {
    uint8_t hdr[8];
};

struct own_rte_flow_item_icmp6 {
    uint8_t hdr[4];
};

struct own_rte_flow_action_mark {
    uint32_t id;
};

struct own_rte_flow_action_queue {
    uint16_t index;
};

struct own_rte_flow_action_rss {
    uint32_t func;
    uint32_t level;
    uint64_t types;
    uint32_t key_len;
    uint32_t queue_num;
    const uint8_t *key;
    const uint16_t *queue;
};

struct own_rte_flow_query_count {
    /* From bit 0 on: reset, hits_set, bytes_set. */
    uint32_t flags;
    uint64_t hits;
    uint64_t bytes;
};

/* Operations on flow rules behind those that the driver has. */
#if KOPI_RELEASE >= 2411
#define OTHER_FLOW_OPS 34
#elif KOPI_RELEASE >= 2311
#define OTHER_FLOW_OPS 44
#else
#define OTHER_FLOW_OPS 31
#endif

struct own_rte_flow_ops {
    int (*validate)(struct own_rte_eth_dev *dev, const struct own_rte_flow_attr *attr, const struct own_rte_flow_item *pattern,
                    const struct own_rte_flow_action *actions, struct own_rte_flow_error *error);
    struct own_rte_flow *(*create)(struct own_rte_eth_dev *dev, const struct own_rte_flow_attr *attr,
                                   const struct own_rte_flow_item *pattern, const struct own_rte_flow_action *actions,
                                   struct own_rte_flow_error *error);
    int (*destroy)(struct own_rte_eth_dev *dev, struct own_rte_flow *flow, struct own_rte_flow_error *error);
    int (*flush)(struct own_rte_eth_dev *dev, struct own_rte_flow_error *error);
    int (*query)(struct own_rte_eth_dev *dev, struct own_rte_flow *flow, const struct own_rte_flow_action *action, void *data,
                 struct own_rte_flow_error *error);
    int (*isolate)(struct own_rte_eth_dev *dev, int on, struct own_rte_flow_error *error);
    own_none others[OTHER_FLOW_OPS];
};

/* Those of a port, of one of its queues, and on its link. */
typedef int (*own_dev_op)(struct own_rte_eth_dev *dev);
typedef int (*own_queue_op)(struct own_rte_eth_dev *dev, uint16_t queue);
typedef void (*own_queue_release)(struct own_rte_eth_dev *dev, uint16_t queue);
typedef int (*own_rss_op)(struct own_rte_eth_dev *dev, struct own_rte_eth_rss_conf *conf);
typedef int (*own_reta_op)(struct own_rte_eth_dev *dev, struct own_rte_eth_rss_reta_entry64 *groups, uint16_t size);
typedef int (*own_burst_mode_op)(struct own_rte_eth_dev *dev, uint16_t queue, struct own_rte_eth_burst_mode *mode);

struct own_eth_dev_ops {
    own_dev_op dev_configure, dev_start, dev_stop, dev_set_link_up, dev_set_link_down, dev_close, dev_reset;
    int (*link_update)(struct own_rte_eth_dev *dev, int wait);
#if KOPI_RELEASE >= 2411
    own_none speed_lanes_get, speed_lanes_set, speed_lanes_get_capa;
#endif
    own_none is_removed;
    own_dev_op promiscuous_enable, promiscuous_disable, allmulticast_enable, allmulticast_disable;
    void (*mac_addr_remove)(struct own_rte_eth_dev *dev, uint32_t index);
    int (*mac_addr_add)(struct own_rte_eth_dev *dev, struct own_rte_ether_addr *mac, uint32_t index, uint32_t pool);
    int (*mac_addr_set)(struct own_rte_eth_dev *dev, struct own_rte_ether_addr *mac);
    int (*set_mc_addr_list)(struct own_rte_eth_dev *dev, struct own_rte_ether_addr *list, uint32_t count);
    int (*mtu_set)(struct own_rte_eth_dev *dev, uint16_t mtu);
#if KOPI_RELEASE >= 2511
    int (*stats_get)(struct own_rte_eth_dev *dev, struct own_rte_eth_stats *stats, struct own_eth_queue_stats *queues);
#else
    int (*stats_get)(struct own_rte_eth_dev *dev, struct own_rte_eth_stats *stats);
#endif
    own_dev_op stats_reset;
    int (*xstats_get)(struct own_rte_eth_dev *dev, struct own_rte_eth_xstat *stats, unsigned int n);
    own_dev_op xstats_reset;
    int (*xstats_get_names)(struct own_rte_eth_dev *dev, struct own_rte_eth_xstat_name *names, unsigned int n);
    own_none queue_stats_mapping_set;
    int (*dev_infos_get)(struct own_rte_eth_dev *dev, struct own_rte_eth_dev_info *info);
    void (*rxq_info_get)(struct own_rte_eth_dev *dev, uint16_t queue, struct own_rte_eth_rxq_info *info);
    void (*txq_info_get)(struct own_rte_eth_dev *dev, uint16_t queue, struct own_rte_eth_txq_info *info);
#if KOPI_RELEASE >= 2311
    own_none recycle_rxq_info_get;
#endif
    own_burst_mode_op rx_burst_mode_get, tx_burst_mode_get;
    int (*fw_version_get)(struct own_rte_eth_dev *dev, char *text, size_t room);
#if KOPI_RELEASE >= 2411
    const uint32_t *(*dev_supported_ptypes_get)(struct own_rte_eth_dev *dev, size_t *count);
#else
    const uint32_t *(*dev_supported_ptypes_get)(struct own_rte_eth_dev *dev);
#endif
    own_none dev_ptypes_set;
    own_none vlan_filter_set, vlan_tpid_set;
    void (*vlan_strip_queue_set)(struct own_rte_eth_dev *dev, uint16_t queue, int on);
    int (*vlan_offload_set)(struct own_rte_eth_dev *dev, int mask);
    own_none vlan_pvid_set;
    own_none rx_queue_start, rx_queue_stop, tx_queue_start, tx_queue_stop;
    int (*rx_queue_setup)(struct own_rte_eth_dev *dev, uint16_t queue, uint16_t descriptors, unsigned int socket,
                          const struct own_rte_eth_rxconf *conf, struct own_rte_mempool *pool);
    own_queue_release rx_queue_release;
    own_queue_op rx_queue_intr_enable, rx_queue_intr_disable;
    int (*tx_queue_setup)(struct own_rte_eth_dev *dev, uint16_t queue, uint16_t descriptors, unsigned int socket,
                          const struct own_rte_eth_txconf *conf);
    own_queue_release tx_queue_release;
    int (*tx_done_cleanup)(void *queue, uint32_t most);
    own_none dev_led_on, dev_led_off;
    own_none flow_ctrl_get, flow_ctrl_set, priority_flow_ctrl_set;
    own_none priority_flow_ctrl_queue_info_get, priority_flow_ctrl_queue_config;
    own_none uc_hash_table_set, uc_all_hash_table_set, udp_tunnel_port_add, udp_tunnel_port_del, set_queue_rate_limit;
    own_rss_op rss_hash_update, rss_hash_conf_get;
    own_reta_op reta_update, reta_query;
    own_none get_reg, get_eeprom_length, get_eeprom, set_eeprom, get_module_info, get_module_eeprom;
    int (*flow_ops_get)(struct own_rte_eth_dev *dev, const struct own_rte_flow_ops **ops);
    own_none get_dcb_info;
    own_none timesync_enable, timesync_disable, timesync_read_rx_timestamp, timesync_read_tx_timestamp;
    own_none timesync_adjust_time;
#if KOPI_RELEASE >= 2411
    own_none timesync_adjust_freq;
#endif
    own_none timesync_read_time, timesync_write_time;
    int (*read_clock)(struct own_rte_eth_dev *dev, uint64_t *clock);
    own_none xstats_get_by_id, xstats_get_names_by_id;
#if KOPI_RELEASE >= 2511
    own_none xstats_enable, xstats_disable, xstats_query_state;
#endif
    own_none tm_ops_get, mtr_ops_get, pool_ops_supported;
    own_none hairpin_cap_get, rx_hairpin_queue_setup, tx_hairpin_queue_setup;
    own_none fec_get_capability, fec_get, fec_set;
    own_none hairpin_get_peer_ports, hairpin_bind, hairpin_unbind;
    own_none hairpin_queue_peer_update, hairpin_queue_peer_bind, hairpin_queue_peer_unbind;
    own_none get_monitor_addr, representor_info_get, rx_metadata_negotiate;
    own_none ip_reassembly_capability_get, ip_reassembly_conf_get, ip_reassembly_conf_set;
    own_none buffer_split_supported_hdr_ptypes_get, eth_dev_priv_dump;
    own_none rx_queue_avail_thresh_set, rx_queue_avail_thresh_query;
    own_none eth_rx_descriptor_dump, eth_tx_descriptor_dump;
    own_none cman_info_get, cman_config_init, cman_config_set, cman_config_get;
#if KOPI_RELEASE >= 2311
    own_none count_aggr_ports, map_aggr_tx_affinity;
#endif
#if KOPI_RELEASE >= 2411
    own_none get_restore_flags;
#endif
};

#endif
