# What "cmake --install" puts where: headers, static libraries, the tool, and the files by which
# pkg-config and CMake find them. All of it may be moved to another prefix.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/Cumulonimbus)
install(TARGETS nimbus nimbus_build EXPORT CumulonimbusTargets)
install(FILES include/nimbus.h include/nimbus_build.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(EXPORT CumulonimbusTargets NAMESPACE Cumulonimbus:: DESTINATION ${PACKAGE_DIR})
if(TARGET nimbus_tool)
  install(TARGETS nimbus_tool)
endif()

configure_package_config_file(cmake/CumulonimbusConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/CumulonimbusConfig.cmake INSTALL_DESTINATION ${PACKAGE_DIR})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/CumulonimbusConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/CumulonimbusConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/CumulonimbusConfigVersion.cmake DESTINATION ${PACKAGE_DIR})

# From the folder of the .pc files up to the prefix.
file(RELATIVE_PATH PC_UP /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p)
foreach(name nimbus nimbus-build)
  configure_file(cmake/${name}.pc.in ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
