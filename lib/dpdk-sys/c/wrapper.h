/* Everything of DPDK that kopi binds: the public interface, the driver interface, and our out-of-line copies of the
 * inline functions; and the compiler of filters that is in libpcap. bindgen reads this file; build.rs names the functions, types and macros that are let through. */
#ifndef KOPI_WRAPPER_H
#define KOPI_WRAPPER_H

#include <pcap/pcap.h>

#include <rte_alarm.h>
#include <rte_bus.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_interrupts.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mbuf_ptype.h>
#include <rte_memory.h>
#include <rte_mempool.h>
#include <rte_version.h>

#include <bus_vdev_driver.h>
#include <dev_driver.h>
#include <ethdev_driver.h>
#include <ethdev_vdev.h>

#include "inlines.h"

/* bindgen cannot evaluate a macro that holds a cast or calls another macro (RTE_BIT64), but it can evaluate a
 * constant. build.rs takes the prefix off again. */
#define U32(name) static const uint32_t KOPI_CONST_##name = name;
#define U64(name) static const uint64_t KOPI_CONST_##name = name;

U32(RTE_VERSION)

U32(RTE_ETH_DEV_INTR_LSC)
U32(RTE_ETH_DEV_INTR_RMV)
U32(RTE_ETH_DEV_NOLIVE_MAC_ADDR)
U32(RTE_ETH_DEV_AUTOFILL_QUEUE_XSTATS)

U32(RTE_INTR_INSTANCE_F_PRIVATE)

U32(RTE_ETH_LINK_SPEED_FIXED)
U32(RTE_ETH_LINK_SPEED_1G)
U32(RTE_ETH_LINK_SPEED_10G)
U32(RTE_ETH_LINK_SPEED_25G)
U32(RTE_ETH_LINK_SPEED_40G)
U32(RTE_ETH_LINK_SPEED_50G)
U32(RTE_ETH_LINK_SPEED_100G)
U32(RTE_ETH_LINK_SPEED_200G)
U32(RTE_ETH_SPEED_NUM_UNKNOWN)

U64(RTE_ETH_DEV_CAPA_RUNTIME_RX_QUEUE_SETUP)
U64(RTE_ETH_DEV_CAPA_RUNTIME_TX_QUEUE_SETUP)

U64(RTE_ETH_RX_OFFLOAD_VLAN_STRIP)
U64(RTE_ETH_RX_OFFLOAD_VLAN_FILTER)
U64(RTE_ETH_RX_OFFLOAD_IPV4_CKSUM)
U64(RTE_ETH_RX_OFFLOAD_UDP_CKSUM)
U64(RTE_ETH_RX_OFFLOAD_TCP_CKSUM)
U64(RTE_ETH_RX_OFFLOAD_SCATTER)
U64(RTE_ETH_RX_OFFLOAD_RSS_HASH)
U64(RTE_ETH_RX_OFFLOAD_TIMESTAMP)

U64(RTE_ETH_TX_OFFLOAD_VLAN_INSERT)
U64(RTE_ETH_TX_OFFLOAD_IPV4_CKSUM)
U64(RTE_ETH_TX_OFFLOAD_UDP_CKSUM)
U64(RTE_ETH_TX_OFFLOAD_TCP_CKSUM)
U64(RTE_ETH_TX_OFFLOAD_TCP_TSO)
U64(RTE_ETH_TX_OFFLOAD_MT_LOCKFREE)
U64(RTE_ETH_TX_OFFLOAD_MULTI_SEGS)
U64(RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE)

U64(RTE_ETH_RSS_IP)
U64(RTE_ETH_RSS_TCP)
U64(RTE_ETH_RSS_UDP)
U64(RTE_ETH_RSS_SCTP)

U64(RTE_MBUF_F_RX_VLAN)
U64(RTE_MBUF_F_RX_RSS_HASH)
U64(RTE_MBUF_F_RX_VLAN_STRIPPED)
U64(RTE_MBUF_F_RX_IP_CKSUM_GOOD)
U64(RTE_MBUF_F_RX_IP_CKSUM_BAD)
U64(RTE_MBUF_F_RX_L4_CKSUM_GOOD)
U64(RTE_MBUF_F_RX_L4_CKSUM_BAD)
U64(RTE_MBUF_F_TX_VLAN)
U64(RTE_MBUF_F_TX_IPV4)
U64(RTE_MBUF_F_TX_IPV6)
U64(RTE_MBUF_F_TX_IP_CKSUM)
U64(RTE_MBUF_F_TX_L4_MASK)
U64(RTE_MBUF_F_TX_TCP_CKSUM)
U64(RTE_MBUF_F_TX_UDP_CKSUM)
U64(RTE_MBUF_F_TX_TCP_SEG)
U64(RTE_MBUF_F_TX_OFFLOAD_MASK)
U64(RTE_MBUF_F_EXTERNAL)
U64(RTE_MBUF_F_INDIRECT)

/* The first name is that of DPDK 23.03 and later, the second that of 22.11. */
#if !(RTE_IOVA_IN_MBUF + 0) && !(RTE_IOVA_AS_PA + 0)
#error "this DPDK was built with -Denable_iova_as_pa=false, which changes the layout of rte_mbuf: not supported"
#endif

/* Where the fields of rte_mbuf lie in the installed version. lib.rs asserts that its own rte_mbuf agrees. */
#define FIELD(field) KOPI_OFFSET_##field = offsetof(struct rte_mbuf, field)
enum kopi_mbuf_layout {
    KOPI_MBUF_SIZE = sizeof(struct rte_mbuf),
    KOPI_MBUF_ALIGN = __alignof__(struct rte_mbuf),
    FIELD(buf_addr),
    FIELD(buf_iova),
    FIELD(data_off),
    FIELD(refcnt),
    FIELD(nb_segs),
    FIELD(port),
    FIELD(ol_flags),
    FIELD(packet_type),
    FIELD(pkt_len),
    FIELD(data_len),
    FIELD(vlan_tci),
    FIELD(hash),
    FIELD(vlan_tci_outer),
    FIELD(buf_len),
    FIELD(pool),
    FIELD(next),
    FIELD(tx_offload),
    FIELD(shinfo),
    FIELD(priv_size),
    FIELD(timesync),
    FIELD(dynfield1),
};
#undef FIELD

#endif
