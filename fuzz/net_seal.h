/* net_seal.h - gives damaged .net bytes a size and checksum that fit, so that what lies behind
 * those checks is reached (fuzz_net.c, test_netfile.c) */
#ifndef NIMBUS_NET_SEAL_H
#define NIMBUS_NET_SEAL_H

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "net/netfile.h"

/* Where the digits stand in a file of version 1.0, from the start of the file. */
#define SEAL_CRC_AT   (8 + sizeof NETFILE_START - 1 + 3 + sizeof NETFILE_MIDDLE - 1)
#define SEAL_BYTES_AT (SEAL_CRC_AT + NETFILE_CRC_DIGITS + sizeof NETFILE_BYTES_KEY - 1)

static void net_seal(uint8_t *bytes, size_t size)
{
    char digits[24]; /* any size_t */
    if (size < SEAL_BYTES_AT + NETFILE_BYTES_DIGITS)
        return;
    (void)snprintf(digits, sizeof digits, "%016zu", size);
    memcpy(bytes + SEAL_BYTES_AT, digits, NETFILE_BYTES_DIGITS);
    memcpy(bytes + SEAL_CRC_AT, NETFILE_NO_CRC, NETFILE_CRC_DIGITS);
    (void)snprintf(digits, sizeof digits, "%08" PRIx32, nimbus_crc32c(0, bytes, size));
    memcpy(bytes + SEAL_CRC_AT, digits, NETFILE_CRC_DIGITS);
}

#endif
