#!/bin/sh
# Installs the system packages that the platform tests use, where that is allowed.
# Whatever is missing afterwards is named; the tests that need it are then skipped by name.
packages="libsimde-dev qemu-user g++-aarch64-linux-gnu pocl-opencl-icd mesa-vulkan-drivers oclgrind"

missing=""
for package in $packages; do
  dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo -n"
if command -v apt-get >/dev/null 2>&1; then
  $as_root apt-get update -q >/dev/null 2>&1
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive $as_root apt-get install -qy --no-install-recommends $missing >/dev/null 2>&1
fi
for package in $missing; do
  dpkg -s "$package" >/dev/null 2>&1 || echo "not installed, and could not be: $package" >&2
done
exit 0
